"""Every error that Attest raises on purpose, in one tree.

AttestError
├── NotFound              there is no such collection, source, document, version or job
├── Gone                  it was there once and was removed on purpose
├── Conflict              the request contradicts what is stored
│   ├── FolderInUse       another process owns the data folder
│   ├── EmbedderMismatch  the index was built with an embedder that is not there
│   └── QualityLost       an index would find less than the one whose place it is to take
├── InvalidInput          a value that cannot be used, and which one
│   └── InvalidFilter     a filter that cannot be read or asked, and which part of it
├── NotAllowed            a path or an address that this service may not touch
├── Unavailable           a part that is needed is not there (yet): try again, or install it
│   └── DiskFull          there is no space left to write, and where
├── DocumentError         one document cannot be read; its `status` says in which way
├── SourceError           a source could not be listed completely, so nothing may be concluded from it
└── ModelError            the language model did not answer
    ├── ModelTimeout      … in time
    ├── ModelUnavailable  … because it cannot be reached, or is overloaded
    ├── ModelRejected     … because it refused the request (key, model name, prompt too long)
    └── ModelSilent       … with anything but emptiness

Each carries a sentence (`detail`) and, where there is one, what to do about it (`remedy`).
HTTP status codes live in `app/errors.py`.
"""

from __future__ import annotations


class AttestError(Exception):
    """What happened, to which thing, and what to do."""

    code = "error"

    def __init__(self, detail: str, *, remedy: str = "") -> None:
        super().__init__(detail, remedy)
        self.detail = detail
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.detail} {self.remedy}".strip()

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross a process border (the reading sandbox), and keyword-only arguments do not survive the default.
        return _rebuild, (type(self), dict(self.__dict__))


def _rebuild(kind: type[AttestError], state: dict[str, object]) -> AttestError:
    error = kind.__new__(kind)
    error.__dict__.update(state)
    error.args = (error.detail, error.remedy)
    return error


class NotFound(AttestError):
    code = "not-found"


class Gone(AttestError):
    code = "gone"


class Conflict(AttestError):
    code = "conflict"


class FolderInUse(Conflict):
    code = "folder-in-use"


class EmbedderMismatch(Conflict):
    code = "embedder-mismatch"


class QualityLost(Conflict):
    code = "quality-check"


class InvalidInput(AttestError):
    code = "invalid-input"


class InvalidFilter(InvalidInput):
    """`pointer` is a JSON Pointer to the part that is wrong."""

    code = "invalid-filter"

    def __init__(self, detail: str, *, pointer: str, remedy: str = "") -> None:
        super().__init__(detail, remedy=remedy)
        self.pointer = pointer


class NotAllowed(AttestError):
    code = "not-allowed"


class Unavailable(AttestError):
    code = "unavailable"


class DiskFull(Unavailable):
    code = "disk-full"


class DocumentError(AttestError):
    """One document cannot be read. `status` is one of `models.DocumentStatus`, and is also its `code`."""

    def __init__(self, status: str, detail: str, *, remedy: str = "") -> None:
        super().__init__(detail, remedy=remedy)
        self.status = status

    @property
    def code(self) -> str:  # type: ignore[override]  # the status is the stable word that clients see
        return self.status.replace("_", "-")


class SourceError(AttestError):
    code = "source-unreachable"


class ModelError(AttestError):
    code = "model-error"


class ModelTimeout(ModelError):
    code = "model-timeout"


class ModelUnavailable(ModelError):
    code = "model-unavailable"


class ModelRejected(ModelError):
    code = "model-rejected"


class ModelSilent(ModelError):
    code = "model-silent"
