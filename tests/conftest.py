"""What all tests share."""

from __future__ import annotations

import os
from getpass import getuser
from pathlib import Path
from tempfile import gettempdir

# An embedder is prepared for this machine once, and not for each of the many data folders that tests make: that takes
# as long as loading torch does. Services that tests start as processes of their own inherit it.
os.environ.setdefault("ATTEST_MODEL_CACHE", str(Path(gettempdir()) / f"attest-test-models-{getuser()}"))
