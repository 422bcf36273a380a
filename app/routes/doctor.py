"""Is all well, and can it be mended?"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from app.dependencies import ServiceDep
from app.doctor import examine, mend

router = APIRouter(prefix="/doctor", tags=["service"])

Deep = Annotated[
    bool, Query(description="Read everything that is stored, and compare it. Takes as long as that takes.")
]


@router.get("")
def get_doctor(service: ServiceDep, deep: Deep = False) -> dict[str, Any]:
    """Is all well: catalog, caches, embedder, language model, OCR, disk; `deep`: every text, chunk, vector, original
    and quote against each other, as `findings`."""
    return examine(service, deep=deep)


@router.post("/repair")
def repair(service: ServiceDep) -> dict[str, Any]:
    """Look as deep as that, and repair what can be repaired. `findings` say what was, and what is left to you."""
    return mend(service)
