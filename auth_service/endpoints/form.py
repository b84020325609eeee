"""Form bodies (`application/x-www-form-urlencoded`): strictly read into a frozen model, or refused without repeating.

RFC 6749 §3.2: a parameter without a value is as good as none, one that is not known is ignored, none may come twice.
"""

import re
from typing import Any, ClassVar, TypeVar

from pydantic import ConfigDict
from starlette.requests import Request

from auth_service.endpoints.body import Body, has_media_type, read_body, validated
from auth_service.errors import InvalidRequest, UnsupportedMediaType

MEDIA_TYPE = "application/x-www-form-urlencoded"
MAX_FIELDS = 32

_Form = TypeVar("_Form", bound="Form")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")


class Form(Body):
    """A form. `repeatable` names the fields that may come several times, and are tuples."""

    model_config = ConfigDict(extra="ignore")

    repeatable: ClassVar[frozenset[str]] = frozenset()


async def parse_form(request: Request, model: type[_Form]) -> _Form:
    """The body of `request`. No body at all is an empty form: what it lacks is then named (RFC 6749 §5.2).

    Raises InvalidRequest, PayloadTooLarge, UnsupportedMediaType.
    """
    content_type = request.headers.get("content-type")
    if content_type is not None and not has_media_type(content_type, MEDIA_TYPE):
        raise UnsupportedMediaType(MEDIA_TYPE)
    data = await read_body(request)
    if data and content_type is None:
        raise UnsupportedMediaType(MEDIA_TYPE)
    return validated(model, _members(form_values(data), model))


def form_decoded(text: bytes) -> str:
    """One name or value, decoded. Raises ValueError for a stray percent sign, bytes that are not UTF-8, and NUL."""
    decoded = _ESCAPE.sub(_byte, text.replace(b"+", b" ")).decode("utf-8")
    if "\0" in decoded:
        raise ValueError("NUL")
    return decoded


def _byte(escape: re.Match[bytes]) -> bytes:
    if escape[1] is None:
        raise ValueError("a stray percent sign")
    return bytes.fromhex(escape[1].decode("ascii"))


def form_values(data: bytes) -> dict[str, list[str]]:
    """Every parameter that has a value, with all its values in their order. Raises InvalidRequest."""
    if data.count(b"&") >= MAX_FIELDS:
        raise InvalidRequest(f"The body holds more than {MAX_FIELDS} parameters.")
    values: dict[str, list[str]] = {}
    try:
        for pair in filter(None, data.split(b"&")):
            name, _, value = map(form_decoded, pair.partition(b"="))
            if value:
                values.setdefault(name, []).append(value)
    except ValueError:
        raise InvalidRequest("The body is not a form.") from None
    return values


def _members(values: dict[str, list[str]], model: type[Form]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, given in values.items():
        if name in model.repeatable:
            members[name] = tuple(given)
        elif len(given) == 1:
            members[name] = given[0]
        else:
            # A name is repeated only if it is one of ours.
            fields = ((name, "is there twice"),) if name in model.model_fields else ()
            raise InvalidRequest("The body holds a parameter twice.", fields=fields)
    return members
