"""How a refusal is answered: status, challenge and body of RFC 6750 §3, over HTTP and for a WebSocket.

The answer never tells which check failed: that is for the log of whoever runs this service.
"""

import re
from dataclasses import dataclass

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from auth_service.verifier.errors import (
    InsufficientScope,
    InvalidRequest,
    InvalidToken,
    MissingCredentials,
    Unavailable,
    VerifierError,
)

POLICY_VIOLATION = 1008
"""The close code of a WebSocket that is not, or no longer, allowed (RFC 6455 §7.4.1)."""

TRY_AGAIN_LATER = 1013

_NOT_QUOTABLE = re.compile(r'[^\x20-\x7e]|["\\]')


@dataclass(frozen=True, slots=True)
class Challenge:
    """An answer to a request that is refused."""

    status: int
    error: str | None
    description: str
    headers: dict[str, str]

    def response(self) -> Response:
        body = {"error": self.error or "unauthorized", "error_description": self.description}
        return JSONResponse(body, self.status, self.headers)

    @property
    def close_code(self) -> int:
        return TRY_AGAIN_LATER if self.status == 503 else POLICY_VIOLATION


def challenge(refusal: VerifierError, *, realm: str) -> Challenge:
    """The answer to `refusal`. `realm` names what is protected."""
    match refusal:
        case MissingCredentials():
            status, error, description = 401, None, "An access token is needed."
        case InvalidToken():
            status, error, description = 401, refusal.code, "The access token is expired, revoked or not valid."
        case InsufficientScope():
            status, error, description = 403, "insufficient_scope", "The access token does not allow this."
        case InvalidRequest():
            status, error, description = 400, "invalid_request", "Present one access token, in one way."
        case Unavailable():
            headers = {"Retry-After": str(refusal.retry_after), "Cache-Control": "no-store"}
            return Challenge(503, "temporarily_unavailable", "Access cannot be decided now: try again.", headers)
        case _:
            raise TypeError(f"{type(refusal).__name__} has no answer")
    parameters = [f'realm="{_NOT_QUOTABLE.sub("", realm)}"']
    if error is not None:
        parameters += [f'error="{error}"', f'error_description="{description}"']
    if isinstance(refusal, InsufficientScope):
        parameters.append(f'scope="{_NOT_QUOTABLE.sub("", " ".join(refusal.scopes))}"')
    headers = {"WWW-Authenticate": f"Bearer {', '.join(parameters)}", "Cache-Control": "no-store"}
    return Challenge(status, error, description, headers)


async def answer(refused: Challenge, scope: Scope, receive: Receive, send: Send) -> None:
    """Send `refused` as the answer to an HTTP request, or to a WebSocket that has not been accepted yet.

    A WebSocket gets the same HTTP answer where the server can send one, and is closed before it is open elsewhere.
    """
    if can_only_close(scope):
        await send({"type": "websocket.close", "code": refused.close_code, "reason": refused.description})
    else:
        await refused.response()(scope, receive, send)


def can_only_close(scope: Scope) -> bool:
    """Whether this is a WebSocket of a server that cannot answer it over HTTP before it is accepted."""
    return scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {})
