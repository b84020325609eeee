"""Ids in a path: what is not one names nothing."""

from typing import Any
from uuid import UUID

from starlette.requests import Request

from auth_service.errors import NotFound

DESCRIBED: dict[str, dict[str, Any]] = {"id": {"type": "string", "format": "uuid"}}
"""Of a path with `{id}`, for the OpenAPI document."""


def path_id(request: Request) -> UUID:
    """The id in the path. Raises NotFound."""
    try:
        return UUID(request.path_params["id"])
    except ValueError:
        raise NotFound("not an id") from None
