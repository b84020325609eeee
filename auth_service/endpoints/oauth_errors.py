"""Refusals of the OAuth endpoints as RFC 6749 §5.2 wants them: `error` and `error_description`, not problem details."""

import json
from collections.abc import Awaitable, Callable

import structlog
from starlette.requests import Request
from starlette.responses import Response

from auth_service.edge.problems import REALM
from auth_service.errors import (
    GrantRefused,
    InvalidClient,
    OriginRefused,
    RefreshRefused,
    ServiceError,
    Unavailable,
)

_Handler = Callable[[Request], Awaitable[Response]]

_log = structlog.get_logger(__name__)


def oauth_errors(handler: _Handler) -> _Handler:
    """`handler`, with what it refuses rendered as an OAuth error."""

    async def answered(request: Request) -> Response:
        try:
            return await handler(request)
        except ServiceError as exc:
            log = _log.warning if exc.status >= 500 else _log.info
            log("refused", problem=exc.code, reason=exc.reason)
            return render_oauth(exc)

    return answered


def render_oauth(exc: ServiceError) -> Response:
    """The answer to a refusal."""
    headers = {"Cache-Control": "no-store", "Pragma": "no-cache"}
    status, error = exc.status, "invalid_request"
    description = exc.detail
    match exc:
        case InvalidClient():
            error = exc.code
            headers["WWW-Authenticate"] = f'Basic realm="{REALM}", charset="UTF-8"'
        case GrantRefused():
            error = exc.code
        case RefreshRefused() | OriginRefused():
            status, error = 400, "invalid_grant"
        case Unavailable():
            # Not in §5.2, which has none for it; §4.1.2.1 has, and the status says the rest.
            error = "temporarily_unavailable"
        case _ if exc.fields:
            description = " ".join([description, *(f"{field} {message}." for field, message in exc.fields)])
    if exc.retry_after is not None:
        headers["Retry-After"] = str(exc.retry_after)
    content = json.dumps({"error": error, "error_description": description})
    return Response(content, status, headers, "application/json")
