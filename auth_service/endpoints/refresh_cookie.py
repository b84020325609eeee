"""The refresh cookie: `__Host-`, so that no other host or path can set it, and out of every script's reach."""

from starlette.requests import Request
from starlette.responses import Response

from auth_service.sessions.issuing import IssuedTokens

NAME = "__Host-refresh_token"

DESCRIBED = (("Set-Cookie", f"With the cookie transport: `{NAME}`, where its generation is new to the caller."),)
"""Of an answer that may set it, for the OpenAPI document."""


def presented(request: Request) -> str | None:
    """The refresh token in the request's cookie, or None."""
    return request.cookies.get(NAME)


def attach(response: Response, tokens: IssuedTokens) -> None:
    """Set the cookie, where the session's transport is the cookie and the caller may not hold this generation yet."""
    if tokens.transport == "cookie" and tokens.refresh_token is not None:
        _set(response, tokens.refresh_token, tokens.refresh_expires_in)


def clear(response: Response) -> None:
    _set(response, "", 0)


def _set(response: Response, value: str, max_age: int) -> None:
    # Path=/ is what the prefix demands (RFC 6265bis §4.1.3.2).
    response.set_cookie(NAME, value, max_age=max_age, path="/", secure=True, httponly=True, samesite="strict")
