"""How much a language model takes at once, and how many tokens a text is, where only a server knows for sure."""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

log = logging.getLogger(__name__)

UNKNOWN_WINDOW = 4096  # Ollama's default where a GPU has less than 24 GiB, and within reach of everything else
_PROBE_SECONDS = 2.0
_ASK_AGAIN_SECONDS = 60.0  # a server that was down when asked may be up later

# Services that do not tell. Kept low on purpose: a shorter prompt still answers, a longer one is refused.
_KNOWN_HOSTS = {
    "api.openai.com": 128_000,
    "api.deepseek.com": 65_536,
    "dashscope.aliyuncs.com": 32_768,
    "dashscope-intl.aliyuncs.com": 32_768,
}
_WINDOW_KEYS = ("max_model_len", "loaded_context_length", "context_length", "context_window", "max_context_length")

_LETTERS = re.compile(r"[A-Z]{2,}|[A-Z]?[a-z]+|[A-Z]")
_BLANKS = re.compile(r"\s+")
_WORD = re.compile(r"[A-Za-z]+")
_DIGIT = re.compile(r"[0-9]")
_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


def estimate_tokens(text: str) -> int:
    """Tokens of a text by an unknown tokenizer, erring on the high side.

    A word takes 1 per 5 letters begun (capitals 1 per 2), a line end 1, everything else 1 each: several vocabularies
    (Llama 2, Qwen) split numbers into digits, and those made for Chinese stay below 1 per character. A tenth on top.
    Against SmolLM2's own counts: English 1.3 to 1.4 times, tables of numbers 1.03; Chinese, unknown to it, 0.66.
    """
    words = _LETTERS.findall(text)
    letters = sum(map(len, words))
    tokens = sum(math.ceil(len(word) / (2 if word.isupper() and len(word) > 1 else 5)) for word in words)
    blanks = _BLANKS.findall(text)
    tokens += sum(1 for blank in blanks if blank != " ")
    return math.ceil(1.1 * (tokens + len(text) - letters - sum(map(len, blanks))))


def fewest_tokens(text: str) -> int:
    """What no usual tokenizer stays below: a word is a token at least, and so are 3 digits, or 2.5 Han characters."""
    han = len(_HAN.findall(text))
    return int(len(_WORD.findall(text)) + len(_DIGIT.findall(text)) / 3 + han / 2.5)


class WindowFinder:
    """A model's context length, asked of its server when first needed, or set. Thread-safe."""

    def __init__(self, find: Callable[[], int | None], *, default: int = UNKNOWN_WINDOW) -> None:
        self._find = find
        self._default = default
        self._lock = threading.Lock()
        self._found: int | None = None
        self._asked_at = -math.inf

    def __call__(self) -> int:
        with self._lock:
            if self._found is None and time.monotonic() - self._asked_at > _ASK_AGAIN_SECONDS:
                self._found = self._find()
                self._asked_at = time.monotonic()
            return self._found or self._default

    def learn(self, window: int) -> None:
        """A server's refusal named its context length, which outdoes what was thought before."""
        with self._lock:
            self._found = min(window, self._found or window)


def default_for(base_url: str) -> int:
    """What to take for a server that does not tell."""
    return _KNOWN_HOSTS.get(urlsplit(base_url).hostname or "", UNKNOWN_WINDOW)


def ask_server(base_url: str, model: str, api_key: str | None) -> int | None:
    """The context length as vLLM, llama.cpp, Ollama, LM Studio and hosts that list it tell it; None from others."""
    import httpx

    if urlsplit(base_url).hostname in _KNOWN_HOSTS:
        return None
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    with httpx.Client(
        headers=headers, timeout=_PROBE_SECONDS, trust_env=not is_loopback(base_url), follow_redirects=False
    ) as client:
        try:
            for window in _answers(client, base_url, model):
                if window:
                    log.info("the server of %s has a context length of %d tokens", model, window)
                    return window
        except httpx.TransportError as error:
            log.info("the context length of %s could not be asked for: %s", model, type(error).__name__)
    return None


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine; a proxy from the environment must not stand between."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _answers(client: Any, base_url: str, model: str) -> Iterator[int | None]:
    parts = urlsplit(base_url)
    path = parts.path.rstrip("/")
    root = urlunsplit((parts.scheme, parts.netloc, path.removesuffix("/v1"), "", "")).rstrip("/")
    listed = _json(client, "GET", f"{base_url.rstrip('/')}/models")
    if listed is None:
        return
    # Ollama first: its list says nothing of windows, and what it serves is not what the model was made for.
    yield _ollama(client, root, model)
    entry = _entry(listed, model)
    yield _first_number(entry, _WINDOW_KEYS)
    props = _json(client, "GET", f"{root}/props")
    if props:
        settings = props.get("default_generation_settings")
        yield _first_number(settings if isinstance(settings, Mapping) else {}, ("n_ctx",)) or _first_number(
            props, ("n_ctx",)
        )
    meta = entry.get("meta")
    yield _first_number(meta if isinstance(meta, Mapping) else {}, ("n_ctx",))
    lm_studio = _json(client, "GET", f"{root}/api/v0/models")
    yield _first_number(_entry(lm_studio or {}, model), ("loaded_context_length",))


def _ollama(client: Any, root: str, model: str) -> int | None:
    """The window a loaded model runs with, else the one its Modelfile asks for, else the server's usual default."""
    running = _json(client, "GET", f"{root}/api/ps")
    if running is None or not isinstance(running.get("models"), list):
        return None
    for entry in running["models"]:
        if isinstance(entry, Mapping) and {model, f"{model}:latest"} & {entry.get("name"), entry.get("model")}:
            window = _first_number(entry, ("context_length",))
            if window:
                return window
    shown = _json(client, "POST", f"{root}/api/show", {"model": model}) or {}
    asked = re.search(r"^num_ctx\s+(\d+)", str(shown.get("parameters", "")), re.MULTILINE)
    if asked:
        return int(asked.group(1))
    info = shown.get("model_info")
    trained = [
        value for key, value in (info.items() if isinstance(info, Mapping) else ()) if key.endswith(".context_length")
    ]
    return min([UNKNOWN_WINDOW, *(value for value in trained if isinstance(value, int) and value > 0)])


def _entry(listed: Mapping[str, Any], model: str) -> Mapping[str, Any]:
    data = listed.get("data")
    entries = [entry for entry in data if isinstance(entry, Mapping)] if isinstance(data, list) else []
    named = [entry for entry in entries if entry.get("id") == model]
    if named:
        return named[0]
    return entries[0] if len(entries) == 1 else {}


def _first_number(holder: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    for key in keys:
        value = holder.get(key)
        if isinstance(value, int) and value > 0:
            return value
    return None


def _json(client: Any, method: str, url: str, body: object = None) -> dict[str, Any] | None:
    """The JSON object that answers, or None for a refusal or anything else."""
    response = client.request(method, url, json=body) if body is not None else client.request(method, url)
    if response.status_code != 200:
        return None
    try:
        answer = response.json()
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None
