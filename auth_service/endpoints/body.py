"""Request bodies: strict JSON into a frozen model, or a refusal that names the field and repeats nothing."""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Never, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request

from auth_service.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType

MAX_BYTES = 16 * 1024

_Body = TypeVar("_Body", bound="Body")


class Body(BaseModel):
    """A request body. An unknown member is an error: it is a misspelt one."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    alternatives: ClassVar[tuple[str, ...]] = ()
    """The fields that a check of the whole body is about."""


_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def _storable(value: str) -> str:
    # JSON can spell both; PostgreSQL takes neither, and a lone surrogate is not text at all.
    if _UNSTORABLE.search(value):
        raise ValueError("must be text without NUL and without lone surrogates")
    return value


Text = Annotated[str, AfterValidator(_storable)]
"""A string that can be stored."""


async def parse_body(request: Request, model: type[_Body], *, optional: bool = False) -> _Body:
    """The body of `request`. `optional`: no body at all is the same as `{}`.

    Raises InvalidRequest, PayloadTooLarge, UnsupportedMediaType.
    """
    _require_json(request)
    return judged_body(request, await read_body(request), model, optional=optional)


def judged_body(request: Request, data: bytes, model: type[_Body], *, optional: bool = False) -> _Body:
    """`data`, which `read_body` has read, as `parse_body` takes it. Raises InvalidRequest, UnsupportedMediaType."""
    content_type = _require_json(request)
    if not data and optional:
        return model()
    if content_type is None:
        raise UnsupportedMediaType()
    return validated(model, _parse(data, model))


def _require_json(request: Request) -> str | None:
    """The Content-Type, if there is one. Raises UnsupportedMediaType for another than JSON."""
    content_type = request.headers.get("content-type")
    if content_type is not None and not has_media_type(content_type, "application/json"):
        raise UnsupportedMediaType()
    return content_type


def has_media_type(content_type: str, wanted: str) -> bool:
    """Whether a Content-Type names the media type `wanted`, in UTF-8."""
    media_type, *parameters = [part.strip().lower() for part in content_type.split(";")]
    # What is read here is UTF-8 (RFC 8259 §8.1, RFC 6749 appendix B); other parameters mean nothing for it.
    charsets = [part.removeprefix("charset=").strip('"') for part in parameters if part.startswith("charset=")]
    return media_type == wanted and all(charset == "utf-8" for charset in charsets)


async def read_body(request: Request) -> bytes:
    """The whole body. Raises PayloadTooLarge."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > MAX_BYTES:
        raise PayloadTooLarge(MAX_BYTES)
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BYTES:
            raise PayloadTooLarge(MAX_BYTES)
    return bytes(data)


def _parse(data: bytes, model: type[Body]) -> dict[str, Any]:
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique_members, parse_constant=_refuse_constant)
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.") from None
    except _DuplicateMember as exc:
        # A name is repeated only if it is one of ours.
        fields = ((exc.name, "is there twice"),) if exc.name in model.model_fields else ()
        raise InvalidRequest("The body holds a member twice.", fields=fields) from None
    except ValueError:
        raise InvalidRequest("The body is not JSON.") from None
    if not isinstance(value, dict):
        raise InvalidRequest("The body is not a JSON object.")
    return value


def validated(
    model: type[_Body], members: Mapping[str, Any], *, unknown: str = "The body holds a member that is not one of"
) -> _Body:
    """`members` as a `model`. `unknown` begins the sentence about a member that is none of the model's.

    Raises InvalidRequest.
    """
    try:
        return model.model_validate(members)
    except ValidationError as exc:
        wrong: dict[str, str] = {}
        strange = False
        for error in exc.errors(include_url=False, include_input=False):
            if error["type"] == "extra_forbidden":
                strange = True  # its name is the client's text: it is not repeated
            elif error["loc"]:
                name, *within = error["loc"]
                wrong.setdefault(str(name), f"each {_told(error)}" if within else _told(error))
            elif error["type"] == "value_error":
                for field in model.alternatives:
                    wrong.setdefault(field, _told(error))
            else:
                strange = True  # a name that is not even text
        detail = "These fields are wrong: " + ", ".join(wrong) + "." if wrong else ""
        if strange:
            known = ", ".join(model.model_fields)
            detail = f"{detail} {unknown}: {known}.".strip()
        raise InvalidRequest(detail, fields=tuple(wrong.items())) from None


def _told(error: ErrorDetails) -> str:
    """What is wrong with a value, as goes on after its name. Pydantic's own words are for who writes a model."""
    context = error.get("ctx", {})
    counted = "entries" if context.get("field_type") == "List" else "characters"
    match error["type"]:
        case "value_error":
            return error["msg"].removeprefix("Value error, ")
        case "missing":
            return "is required"
        case "string_type":
            return "must be a string"
        case "int_type":
            return "must be a whole number"
        case "bool_type":
            return "must be true or false"
        case "list_type":
            return "must be a list"
        case "literal_error":
            return f"must be {context['expected']}"
        case "string_too_short" | "too_short" if context["min_length"] == 1:
            return "must not be empty"
        case "string_too_short" | "too_short":
            return f"must have at least {context['min_length']} {counted}"
        case "string_too_long" | "too_long":
            return f"must have at most {context['max_length']} {counted}"
        case "greater_than_equal":
            return f"must be at least {context['ge']}"
        case "less_than_equal":
            return f"must be at most {context['le']}"
        case _:
            return "is not well formed"


class _DuplicateMember(ValueError):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise _DuplicateMember(name)
        members[name] = value
    return members


def _refuse_constant(_name: str) -> Never:
    raise ValueError
