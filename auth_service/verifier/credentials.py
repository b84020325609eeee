"""Where a request carries its access token: the Authorization header (RFC 6750 §2.1), or a WebSocket's subprotocols.

Never the query string and never a form: those end up in logs and histories.
"""

import re
from typing import Any

from auth_service.verifier.errors import InvalidRequest

SUBPROTOCOL = "bearer"
"""A browser cannot set headers on a WebSocket: it offers the subprotocols `bearer, <access token>`."""

_OFFERED = "auth_service.verifier.offered_access_token"
"""Where a scope keeps the token that `take_offered_access_token` has taken from its subprotocols."""

_SEPARATOR = re.compile(rb"[ \t]")
_SPACE, _TAB = b" \t"  # as numbers: bytes are searched for those more quickly than for other bytes


def authorization(scope: Any) -> bytes | None:
    """The Authorization header of an ASGI `http` or `websocket` scope. Raises InvalidRequest where there are two."""
    found: bytes | None = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            if found is not None:
                raise InvalidRequest("two Authorization headers")
            found = value
    return found


def bearer_token(header: bytes) -> bytes | None:
    """The access token in an Authorization header; None where that uses another scheme.

    Raises InvalidRequest where it names the scheme and then no one token.
    """
    if header.startswith(b"Bearer ") and _SPACE not in (token := header[7:]) and _TAB not in token and token:
        return token  # nearly always
    scheme = _SEPARATOR.split(header, maxsplit=1)[0]
    if scheme.lower() != b"bearer":
        return None
    token = header[len(scheme) :].strip(b" ")
    if not token or _SPACE in token or _TAB in token:
        raise InvalidRequest("the Authorization header holds no one token")
    return token


def presented_access_token(scope: Any) -> bytes | None:
    """The access token of an ASGI `http` or `websocket` scope; None where there is none, or another scheme is used.

    As the bytes that were sent: they need not be text.

    Raises InvalidRequest where there are two, or the header names the scheme and then no one token.
    """
    header = authorization(scope)
    token = None if header is None else bearer_token(header)
    if scope["type"] == "websocket":
        offered = offered_access_token(scope)
        if offered is not None and token is not None:
            raise InvalidRequest("a token in the header, and one among the subprotocols")
        if offered is not None:
            token = offered.encode("utf-8", "surrogatepass")
    return token


def offered_access_token(scope: Any) -> str | None:
    """The token of a WebSocket that offers `bearer, <access token>` before any other subprotocol, taken or not.

    Raises InvalidRequest where `bearer` is all that is offered.
    """
    taken: str | None = scope.get(_OFFERED)
    offered = scope.get("subprotocols") or ()
    if taken is not None or not offered or offered[0] != SUBPROTOCOL:
        return taken
    if len(offered) < 2:
        raise InvalidRequest("the subprotocol bearer, and no token behind it")
    found: str = offered[1]
    return found


def take_offered_access_token(scope: Any) -> bool:
    """Leave the application its own subprotocols, and keep the token for whoever verifies it again. Whether there is
    one."""
    token = offered_access_token(scope)
    if token is not None and _OFFERED not in scope:
        scope[_OFFERED], scope["subprotocols"] = token, list(scope["subprotocols"])[2:]
    return token is not None
