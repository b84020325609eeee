"""The refresh cookie: `__Host-`, so that no other host or path can set it, and out of every script's reach."""

from starlette.requests import Request
from starlette.responses import Response

from auth_service.errors import InvalidRequest
from auth_service.sessions.issuing import IssuedTokens

NAME = "__Host-refresh_token"

_SPACE = " \t"  # RFC 6265bis §5.6: nothing else is ignored around a name or a value

DESCRIBED = (("Set-Cookie", f"With the cookie transport: `{NAME}`, where its generation is new to the caller."),)
"""Of an answer that may set it, for the OpenAPI document."""


def presented(request: Request) -> str | None:
    """The refresh token in the request's cookie, or None.

    Raises InvalidRequest for two: no browser has two of this prefix, and which one is a stranger's would be a guess.
    """
    # Not `request.cookies`: it strips from names what Python counts as a space and browsers do not, so that a sibling
    # subdomain could set, for its whole domain, a cookie which only looks like this one once it is here.
    pairs = [pair.partition("=") for header in request.headers.getlist("cookie") for pair in header.split(";")]
    values = [value.strip(_SPACE) for name, equals, value in pairs if equals and name.strip(_SPACE) == NAME]
    if len(values) > 1:
        raise InvalidRequest(f"There is more than one cookie {NAME}.")
    return values[0] if values else None


def attach(response: Response, tokens: IssuedTokens) -> None:
    """Set the cookie, where the session's transport is the cookie and the caller may not hold this generation yet."""
    if tokens.transport == "cookie" and tokens.refresh_token is not None:
        _set(response, tokens.refresh_token, tokens.refresh_expires_in)


def clear(response: Response) -> None:
    _set(response, "", 0)


def _set(response: Response, value: str, max_age: int) -> None:
    # Path=/ is what the prefix demands (RFC 6265bis §4.1.3.2).
    response.set_cookie(
        NAME,
        value,
        max_age=max_age,
        path="/",
        secure=True,
        httponly=True,
        samesite="Strict",  # type: ignore[arg-type] # it is written as it is given: as RFC 6265bis §4.1.1 spells it
    )
