"""JSON answers, written from models."""

from typing import Any

from pydantic import BaseModel, TypeAdapter
from starlette.responses import Response


def json_response(value: BaseModel, *, status: int = 200, whole: bool = False) -> Response:
    """`value` as JSON, without its members that are None; `whole`: with them, as null."""
    return Response(value.model_dump_json(exclude_none=not whole), status, media_type="application/json")


def token_response(tokens: BaseModel, *, status: int = 200) -> Response:
    """An answer that holds tokens, which no cache may keep, however old it is (RFC 6749 §5.1)."""
    response = json_response(tokens, status=status)
    response.headers["Cache-Control"] = "no-store"
    response.headers["Pragma"] = "no-cache"
    return response


def json_list(values: list[Any], adapter: TypeAdapter[Any]) -> Response:
    """`values` as a JSON array."""
    return Response(adapter.dump_json(values), media_type="application/json")
