"""JSON answers, written from models."""

from typing import Any

from pydantic import BaseModel, TypeAdapter
from starlette.responses import Response


def json_response(value: BaseModel, *, status: int = 200, whole: bool = False) -> Response:
    """`value` as JSON, without its members that are None; `whole`: with them, as null."""
    return Response(value.model_dump_json(exclude_none=not whole), status, media_type="application/json")


def json_list(values: list[Any], adapter: TypeAdapter[Any]) -> Response:
    """`values` as a JSON array."""
    return Response(adapter.dump_json(values), media_type="application/json")
