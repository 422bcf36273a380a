"""Documents that people handed over: their bytes are kept here, so they can be read again but not fetched again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from rag.catalog import knowledge
from rag.errors import DocumentError, Gone
from rag.knowledge import KnowledgeBase
from rag.models import Item, MetadataValue, Original, Unlisted


@dataclass(frozen=True, slots=True)
class Upload:
    """One document as it was handed over; its bytes are in the originals already."""

    key: str
    name: str
    sha256: str
    media_type: str | None = None
    title: str | None = None
    uri: str | None = None
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)


class OneUpload:
    """A source of one item, for the job that follows an upload."""

    def __init__(self, upload: Upload, *, base: KnowledgeBase) -> None:
        self._upload = upload
        self._base = base

    def items(self, known: Mapping[str, Mapping[str, str]]) -> Iterator[Item | Unlisted]:  # noqa: ARG002  # the port's
        yield _item(self._upload, self._base)


class UploadSource:
    """Every document of an upload source, for reading all of them again."""

    def __init__(self, source_id: str, *, base: KnowledgeBase) -> None:
        self._source_id = source_id
        self._base = base

    def items(self, known: Mapping[str, Mapping[str, str]]) -> Iterator[Item | Unlisted]:  # noqa: ARG002  # the port's
        with self._base.catalog.read() as snapshot:
            uploads = [
                Upload(
                    key=row.key,
                    name=row.name,
                    sha256=row.state["sha256"],  # the content's own is gone once its bytes could not be found
                    media_type=row.media_type,
                    title=row.state.get("title"),
                    uri=row.uri,
                    metadata=metadata,
                )
                for row, metadata in knowledge.uploaded(snapshot, self._source_id)
            ]
        for upload in uploads:
            yield _item(upload, self._base)


def _item(upload: Upload, base: KnowledgeBase) -> Item:
    state = {"sha256": upload.sha256} | ({"title": upload.title} if upload.title else {})

    def load() -> Original:
        try:
            data = base.originals.get(upload.sha256)
        except Gone as gone:
            raise DocumentError("failed", gone.detail, remedy="Upload it again.") from gone
        return Original(data, upload.name, upload.media_type, upload.title, upload.metadata, state)

    return Item(upload.key, upload.uri or upload.key, state, load)
