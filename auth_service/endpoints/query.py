"""Query parameters: strict, like bodies. One that is not ours is an error, since it is a misspelt filter."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

from pydantic import BeforeValidator
from starlette.requests import Request

from auth_service.endpoints.body import Body, validated
from auth_service.errors import InvalidRequest

_MOST_PARAMETERS = 32
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)

_Query = TypeVar("_Query", bound="Query")


class Query(Body):
    """The parameters of a request. Each value comes as text."""


def _whole_number(text: object) -> object:
    if not isinstance(text, str) or not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError("must be a whole number")
    return int(text)


def _moment(text: object) -> object:
    try:
        if isinstance(text, str) and _RFC3339.fullmatch(text):
            return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError("must be a time of RFC 3339, like 2030-01-31T12:00:00Z")


WholeNumber = Annotated[int, BeforeValidator(_whole_number)]
Moment = Annotated[datetime, BeforeValidator(_moment)]
"""RFC 3339 with an offset; becomes UTC. A plus sign must be written %2B."""


def parse_query(request: Request, model: type[_Query]) -> _Query:
    """The query of `request`. Raises InvalidRequest, which names the parameters of ours that are wrong."""
    return validated(model, _parameters(request, model), unknown="The query holds a parameter that is not one of")


def refuse_query(request: Request) -> None:
    """For what takes no parameters. Raises InvalidRequest where there are any."""
    if request.scope["query_string"]:
        raise InvalidRequest("The query holds a parameter, and here there are none.")


def _parameters(request: Request, model: type[Query]) -> Mapping[str, Any]:
    raw: bytes = request.scope["query_string"]
    if not raw:
        return {}
    try:
        # UTF-8 or nothing: a wrong byte that became U+FFFD would search for something else.
        pairs = parse_qsl(
            raw.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=_MOST_PARAMETERS,
        )
    except ValueError:
        raise InvalidRequest("The query is not well formed.") from None
    given: dict[str, str] = {}
    for name, value in pairs:
        if name in given:
            fields = ((name, "is there twice"),) if name in model.model_fields else ()
            raise InvalidRequest("The query holds a parameter twice.", fields=fields)
        given[name] = value
    return given
