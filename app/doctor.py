"""Is all well? What `attest doctor` and `GET /v1/doctor` show."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Literal

from app.service import Service
from ingest.split import fingerprint, target_of
from rag.catalog import indexes, knowledge, versions
from rag.catalog.engine import quick_check
from rag.errors import AttestError
from rag.rerank.light import LightReranker
from rag.retrieval.probe import understood
from rag.retrieval.ranking import DEFAULT, weighing_of
from rag.search.recall import K
from rag.upkeep.inspection import Finding, inspect, repair

Level = Literal["ok", "note", "problem"]

_LOW_DISK_BYTES = 2 * 1024**3
_WEAK_READING = 0.8  # of what an embedder that reads a language understands


def examine(service: Service, *, deep: bool = False) -> dict[str, Any]:
    """{"ok": bool, "checks": [{name, level, detail}], "findings"?}; `ok` is false when any of them is a problem.

    `deep` reads everything that is stored: 2.5 seconds per 10,000 chunks, beside questions and jobs.
    """
    checks: list[dict[str, str]] = []
    for name, check in _CHECKS.items():
        try:
            level, detail = check(service)
        except AttestError as problem:
            level, detail = "problem", str(problem)
        checks.append({"name": name, "level": level, "detail": detail})
    well = all(check["level"] != "problem" for check in checks)
    if not deep:
        return {"ok": well, "checks": checks}
    found = inspect(service.base)
    return {"ok": well and _is_well(found), "checks": checks, "findings": _shown(found)}


def mend(service: Service) -> dict[str, Any]:
    """{"ok": bool, "findings": […]}: what was found, `repaired` or left to somebody; then what is so now."""
    found = repair(service.base, inspect(service.base))
    return {"ok": _is_well(found), "findings": _shown(found)}


def _is_well(found: Sequence[Finding]) -> bool:
    return all(item.repaired or item.level != "problem" for item in found)


def _shown(found: Sequence[Finding]) -> list[dict[str, Any]]:
    return [asdict(item) for item in found]


def _catalog(service: Service) -> tuple[Level, str]:
    with service.base.catalog.read() as snapshot:
        verdict = quick_check(snapshot)
        pending = len(versions.pending_flips(snapshot))
    if verdict != "ok":
        return "problem", f"The database reports: {verdict}."
    return ("note", f"{pending} changes wait for the terms.") if pending else ("ok", "The database is sound.")


def _caches(service: Service) -> tuple[Level, str]:
    """Both caches against the catalog, key by key."""
    caches = service.base.caches
    lines: list[str] = []
    # Nothing is published between the look into the catalog and the look into the caches.
    with caches.still(), service.base.catalog.read() as snapshot:
        for collection in knowledge.list_collections(snapshot):
            wanted = versions.active_keys(snapshot, collection.index_id)
            for name, present in caches.keys(collection).items():
                if present is not None and present != wanted:
                    missing, orphans = len(wanted - present), len(present - wanted)
                    lines.append(f"{name} of “{collection.name}”: {missing} missing, {orphans} left over")
    if lines:
        return "problem", "; ".join(lines) + ". attest doctor --deep --repair writes them anew."
    if caches.vectors_problem:
        return "note", f"Vectors are searched exactly, because Chroma does not answer: {caches.vectors_problem}"
    if not caches.vectors_attached:
        return "ok", "The terms hold what the catalog says. Vectors are searched exactly, without Chroma."
    return "ok", "Chroma and the terms hold what the catalog says." + _recall(service)


def _recall(service: Service) -> str:
    """What was found of what exact search finds, as it was measured last; nothing in the first minutes."""
    measured = list(service.base.caches.recall.found.values())
    if not measured:
        return ""
    least = min(measured, key=lambda found: found.value)
    return f" Recall@{K} of the last {least.questions} questions: {least.value:.2f}."


def _embedder(service: Service) -> tuple[Level, str]:
    embedder = service.base.embedder
    chinese = embedder.coverage("年假申请流程与设备校准记录")
    detail = f"{embedder.name}, {embedder.dimension} dimensions, window of {embedder.window} tokens."
    if embedder.runtime:
        detail = f"{detail[:-1]}, run by {embedder.runtime}."
    if chinese < 0.8:
        return "note", f"{detail} It knows {chinese:.0%} of Chinese, so the terms lead for Chinese questions."
    return "ok", detail


def _indexes(service: Service) -> tuple[Level, str]:
    """Whether each collection's embedder is there and can read its texts, and what a re-index would change."""
    lines: list[str] = []
    level: Level = "ok"
    with service.base.catalog.read() as snapshot:
        found = [(item, indexes.active_index(snapshot, item.id)) for item in knowledge.list_collections(snapshot)]
        probes = indexes.probes_of(snapshot, [index.id for _, index in found])
    for collection, index in found:
        command = f'attest reindex -c "{collection.name}"'
        try:
            embedder = service.base.embedder_of(collection)
        except AttestError as problem:
            level = "problem"
            lines.append(str(problem))
            continue
        if embedder is not service.base.embedder:
            level = "note" if level == "ok" else level
            lines.append(
                f"“{collection.name}” is read with {index.embedder_name}, not with {service.base.embedder.name}, which "
                f"is configured: {command} changes that."
            )
        target = target_of(index.splitter)
        if target is not None and index.splitter != fingerprint(target_tokens=target):
            level = "note" if level == "ok" else level
            lines.append(f"“{collection.name}” was cut by an earlier splitter: {command} cuts it anew.")
        for probe in probes.get(index.id, {}).values():
            weak = understood(probe) < _WEAK_READING
            level = "note" if weak and level == "ok" else level
            lines.append(
                f"“{collection.name}”, {probe.language}: {index.embedder_name} knows {probe.coverage:.0%} of the "
                f"tokens and finds {probe.found:.0%} of {probe.samples} passages by a sentence"
                + (", so the terms lead." if weak else ".")
            )
    return level, " ".join(lines) or "Nothing was read yet."


def _ranking(service: Service) -> tuple[Level, str]:
    """Whose passages are ranked as fitted on questions."""
    lines: list[str] = []
    with service.base.catalog.read() as snapshot:
        for collection in knowledge.list_collections(snapshot):
            ranking = indexes.ranking_of(snapshot, collection.index_id) or {"languages": {}}
            for language, fitted in sorted(ranking["languages"].items()):
                if weighing_of(ranking, language) == DEFAULT:
                    continue
                only = fitted["weights"] is not None and not isinstance(service.base.reranker, LightReranker)
                lines.append(
                    f"“{collection.name}”, {language}: fitted on {fitted['fitted_on']} questions, nDCG@10 "
                    f"{fitted['before']['ndcg@10']:.3f} → {fitted['after']['ndcg@10']:.3f} on others"
                    + (f"; of it only the vectors' share counts beside {service.base.reranker.name}." if only else ".")
                )
    return "ok", " ".join(lines) or "The defaults rank; attest tune fits a collection's ranking on questions."


def _model(service: Service) -> tuple[Level, str]:
    spec = service.settings.llm
    if spec in ("", "none"):
        return "ok", "No language model: answers are sentences of the sources."
    return "ok", f"{spec} is configured; it is asked when a question comes."


def _ocr(service: Service) -> tuple[Level, str]:
    if not service.settings.ocr:
        return "note", "Switched off by ATTEST_OCR; image-only pages are reported as needs_ocr."
    if importlib.util.find_spec("rapidocr") is None:
        return (
            "note",
            "Not installed; image-only pages are reported as needs_ocr. pip install 'attest[ocr]' reads them.",
        )
    return "ok", "Image-only pages are read."


def _disk(service: Service) -> tuple[Level, str]:
    free = shutil.disk_usage(service.settings.data_dir).free
    detail = f"{free / 1024**3:.1f} GiB free in {service.settings.data_dir}."
    return ("problem" if free < _LOW_DISK_BYTES // 4 else "note" if free < _LOW_DISK_BYTES else "ok"), detail


_CHECKS: dict[str, Callable[[Service], tuple[Level, str]]] = {
    "catalog": _catalog,
    "caches": _caches,
    "embedder": _embedder,
    "embedder reads": _indexes,
    "ranking": _ranking,
    "language model": _model,
    "ocr": _ocr,
    "disk": _disk,
}
