"""Everything that can be configured, in one place. Read from ATTEST_* variables and `.env`; stops at the wiring."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

_ADDRESS = re.compile(r"^([a-z][a-z0-9+.-]*://)(?:[^/@]*@)?([^?#]*).*$", re.DOTALL | re.IGNORECASE)


class Settings(BaseSettings):
    """One field per setting. A test keeps `.env.example` complete."""

    model_config = SettingsConfigDict(env_prefix="ATTEST_", env_file=".env", env_file_encoding="utf-8", extra="ignore")

    data_dir: Path = Field(Path("attest-data"), description="Where everything is kept: one folder, one owner process.")
    host: str = Field("127.0.0.1", description="Address to listen on. Anything but loopback needs ATTEST_ADMIN_KEY.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on.")
    admin_key: SecretStr | None = Field(
        None, description="With a key set, every API call must carry it as a Bearer token."
    )
    allowed_hosts: str = Field(
        "",
        description="Host names this service answers to beside loopback, joined by commas. `*` switches the check off.",
    )
    allowed_roots: str | None = Field(
        None,
        description="Folders that folder sources may lie under, joined by `:`. "
        "Default: home and working folder on loopback without a key; elsewhere none.",
    )
    max_upload_mb: int = Field(100, gt=0, description="Largest request body in MiB.")
    max_questions: int = Field(
        32, ge=1, le=64, description="Questions answered at once. Others wait, and are then turned away with a 503."
    )
    question_wait_seconds: float = Field(2.0, ge=0, description="How long a question waits to be one of them.")

    embedder: str = Field(
        "default", description="`default` (packaged all-MiniLM-L6-v2), or a sentence-transformers name or path."
    )
    runtime: str = Field(
        "auto",
        pattern="^(auto|torch|onnx|openvino)$",
        description="What runs the embedder: `torch`, `onnx`, `openvino`, or `auto` for what is fastest here and gives "
        "the same vectors.",
    )
    model_cache: Path | None = Field(
        None,
        description="Where embedders are kept that were prepared for another runtime than torch. Default: `models` in "
        "the data folder.",
    )
    chroma_url: str | None = Field(
        None, description="A Chroma server, as http://host:port. Default: embedded in the data folder."
    )

    exact_vectors: int = Field(
        20_000,
        ge=0,
        description="Up to so many passages, of all collections together, vectors are searched exactly and Chroma is "
        "not loaded. 0: Chroma from the first one on. A Chroma server is always used.",
    )

    llm: str = Field(
        "none", description="`none`, `openai:MODEL`, `transformers:NAME_OR_PATH`, or any `provider:MODEL` of LangChain."
    )
    llm_base_url: str | None = Field(None, description="Base URL of an OpenAI-compatible server, up to and with /v1.")
    llm_api_key: SecretStr | None = Field(None, description="Key for the language model's server.")
    llm_window: int | None = Field(
        None, gt=255, description="Tokens of prompt and reply together, where it cannot be found out."
    )
    llm_max_tokens: int = Field(512, gt=0, description="Longest reply of the language model in tokens.")
    llm_context_tokens: int = Field(
        4_000, ge=100, description="Most tokens of passages that the language model is shown, if its window has room."
    )
    llm_timeout_seconds: float = Field(60.0, gt=0, description="Patience with the language model's server.")
    llm_retries: int = Field(2, ge=0, le=10, description="Repeats after a rate limit or a failed connection.")
    query_rewrites: int = Field(
        0, ge=0, le=3, description="Other wordings of a question that the language model is asked for; 0 asks for none."
    )

    top_k: int = Field(8, ge=1, le=50, description="Passages looked for per question when the question does not say.")
    min_evidence: float = Field(
        0.35, ge=0, le=1, description="Below this probability that the passages answer, a question is refused."
    )
    reranker: str = Field(
        "light",
        description="`light` (no model), `none`, or a cross-encoder's sentence-transformers name or path.",
    )
    chunk_tokens: int = Field(
        200, ge=32, le=2048, description="Longest chunk in the embedder's tokens, within its window."
    )

    keep_versions: int = Field(5, ge=1, description="Versions kept of each document, the active one included.")
    keep_deleted_days: float = Field(30.0, ge=0, description="How long the versions of a deleted document are kept.")
    keep_answers_days: float = Field(
        30.0, ge=0, description="How long answers are kept, and with them the versions that they cite. 0 keeps none."
    )
    max_delete_share: float = Field(
        0.2, gt=0, le=1, description="A sync that would delete more than this share of a source stops and asks."
    )
    ocr: bool = Field(True, description="Read image-only pages when the `ocr` extra is installed.")
    read_timeout_seconds: float = Field(300.0, gt=0, description="Longest time one document may take to be read.")
    read_memory_mb: int = Field(2048, gt=255, description="Most memory that reading one document may take, in MiB.")
    web_delay_seconds: float = Field(1.0, ge=0, description="Pause between two requests to one host.")
    web_max_mb: int = Field(20, gt=0, description="Largest web page or file fetched, in MiB.")

    backup_dir: Path | None = Field(
        None, description="Where backups are put. Default: the folder backups in the data folder."
    )

    def without_secrets(self) -> dict[str, Any]:
        """Values as JSON has them, all but keys; addresses without user, password and query."""
        values = self.model_dump(mode="json")
        secret = {name for name, field in type(self).model_fields.items() if "SecretStr" in str(field.annotation)}
        return {
            name: _ADDRESS.sub(r"\1\2", value) if isinstance(value, str) else value
            for name, value in values.items()
            if name not in secret
        }

    @property
    def is_loopback(self) -> bool:
        return self.host in ("127.0.0.1", "::1", "localhost")
