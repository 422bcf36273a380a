"""The command line. Every command is a client of the service: see `app.client`.

Nothing heavy is imported at the top: `attest --help` answers at once.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import Annotated

import typer

from app.commands import (
    backups,
    collections,
    documents,
    evaluation,
    feedback,
    gaps,
    jobs,
    questions,
    service,
    sources,
    tuning,
)
from app.commands.shared import FAILED, INTERRUPTED
from rag.errors import AttestError

_HELP = """Answers from your PDFs, web pages and databases, every sentence with a source that can be checked.

Every command goes through the running service, or is the service itself for as long as it takes.

Exit codes: 0 done · 1 failed, or the doctor found a problem · 2 wrong usage · 3 no answer in the sources ·
4 done in part: some documents could not be read · 5 a quality gate found a loss · 130 interrupted
"""

_COLLECTED_AFTER = 50_000  # new objects, some 10 MB at most if all of them were garbage

app = typer.Typer(name="attest", help=_HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command()(service.serve)
app.command()(service.doctor)
app.command()(questions.ask)
app.command()(questions.search)
app.command()(gaps.gaps)
app.command("eval")(evaluation.evaluate)
app.command()(tuning.tune)
app.command()(sources.sync)
app.command()(collections.reindex)
app.add_typer(sources.group, name="sources")
app.add_typer(documents.group, name="documents")
app.add_typer(collections.group, name="collections")
app.add_typer(feedback.group, name="feedback")
app.add_typer(jobs.group, name="jobs")
app.add_typer(backups.group, name="backup")


def main() -> None:
    """Entry point. An error is one sentence on stderr; ATTEST_DEBUG=1 shows where it came from."""
    from app.terminal import complain, prepare

    # Importing a service makes half a million objects that stay, and by default they are gone over 300 times meanwhile.
    gc.set_threshold(_COLLECTED_AFTER, 20, 50)
    prepare()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: in good order
    try:
        app()
    except AttestError as problem:
        _raise_for_debugging()
        complain(str(problem))
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of the pipe has seen enough
        sys.exit(FAILED)
    except Exception as problem:  # noqa: BLE001  # the outermost edge: a person gets a sentence, not a traceback
        _raise_for_debugging()
        complain(f"Something unforeseen went wrong: {type(problem).__name__}: {problem} ATTEST_DEBUG=1 shows where.")
        sys.exit(FAILED)


def _raise_for_debugging() -> None:
    if os.environ.get("ATTEST_DEBUG"):
        raise  # called from an except clause only


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(version("attest"))
        raise typer.Exit


@app.callback()
def attest(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")
    ] = False,
) -> None: ...


if __name__ == "__main__":
    main()
