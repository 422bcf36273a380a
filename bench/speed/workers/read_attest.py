"""Attest's reading of PDFs alone, in its reading process.

python read_attest.py FOLDER
"""

import sys
from pathlib import Path

from protocol import serve_reading


def main() -> None:
    from ingest.readers.options import ReadOptions
    from ingest.readers.sandbox import Sandbox

    folder = Path(sys.argv[1])
    sandbox = Sandbox(memory_bytes=2**31, timeout_seconds=120.0)

    def read() -> int:
        paths = sorted(folder.glob("*.pdf"))
        parsed = [
            sandbox.read(path.read_bytes(), name=path.name, media_type="application/pdf", options=ReadOptions())
            for path in paths
        ]
        return sum(len(one.pages) for one in parsed)

    try:
        serve_reading(read)
    finally:
        sandbox.close()


if __name__ == "__main__":
    main()
