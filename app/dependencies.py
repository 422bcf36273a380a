"""What routes are given."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from app.service import Service


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(service_of)]
