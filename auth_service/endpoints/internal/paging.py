"""Keyset pagination: a page of a list, and the opaque cursor that begins the next one.

A cursor says after which row to go on, so a page stays right while rows come and go. It holds typed values of one list
alone; whatever else is in it is refused, and it never becomes part of a statement's text.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, Field
from starlette.responses import Response

from auth_service.endpoints.body import Text
from auth_service.endpoints.json_response import json_response
from auth_service.endpoints.query import Query, WholeNumber
from auth_service.errors import InvalidRequest

MOST = 200
_LONGEST_CURSOR = 1024
_LONGEST_TEXT = 255

_Item = TypeVar("_Item")
_Row = TypeVar("_Row")


class Page(BaseModel, Generic[_Item]):
    """Some of a list. `next` is the cursor of the following page, or null where this is the last."""

    items: list[_Item]
    next: str | None = Field(examples=["WyJ1c2VycyIsICJhZGEiXQ"])


class PageQuery(Query):
    """Which page."""

    limit: Annotated[WholeNumber, Field(ge=1, le=MOST, description="At most so many.")] = 50
    cursor: Annotated[Text, Field(max_length=_LONGEST_CURSOR, description="`next` of the page before.")] | None = None


class Cursors:
    """The cursors of one list, whose order is by columns of these types: `str`, `int`, `datetime` or `UUID`."""

    def __init__(self, name: str, *types: type) -> None:
        self._name = name
        self._types = types

    def write(self, *values: object) -> str:
        """The cursor of the row with these values."""
        document = json.dumps([self._name, *map(_plain, values)], ensure_ascii=False, separators=(",", ":"))
        return urlsafe_b64encode(document.encode()).rstrip(b"=").decode("ascii")

    def read(self, cursor: str | None) -> tuple[Any, ...] | None:
        """The values in `cursor`; None for the first page. Raises InvalidRequest for what this list did not write."""
        if cursor is None:
            return None
        try:
            name, *values = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
            if name != self._name:
                raise ValueError
            found = tuple(_READERS[kind](value) for kind, value in zip(self._types, values, strict=True))
            if self.write(*found) != cursor:
                raise ValueError
        except (ValueError, TypeError, RecursionError, OverflowError):
            message = "is not a cursor of this list"
            raise InvalidRequest("These fields are wrong: cursor.", fields=(("cursor", message),)) from None
        return found


def page_of(
    rows: Sequence[_Row], limit: int, *, item: Callable[[_Row], _Item], cursor: Callable[[_Row], str]
) -> Response:
    """The first `limit` of `rows` as a page. There is a next one if there are more."""
    shown = rows[:limit]
    following = cursor(shown[-1]) if len(rows) > limit else None
    return json_response(Page[Any](items=[item(row) for row in shown], next=following), whole=True)


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else str(value) if isinstance(value, UUID) else value


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT or "\0" in value:
        raise ValueError
    return value


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError
    return value


def _moment(value: object) -> datetime:
    return datetime.fromisoformat(_text(value)).astimezone(UTC)


_READERS: dict[type, Callable[[object], object]] = {
    str: _text,
    int: _integer,
    datetime: _moment,
    UUID: lambda value: UUID(_text(value)),
}
