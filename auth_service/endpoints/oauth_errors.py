"""Refusals of the OAuth endpoints as RFC 6749 §5.2 wants them: `error` and `error_description`, not problem details."""

import json
from collections.abc import Awaitable, Callable

import structlog
from starlette.requests import Request
from starlette.responses import Response

from auth_service.edge.problems import REALM
from auth_service.endpoints.body import MAX_BYTES
from auth_service.endpoints.form import MEDIA_TYPE
from auth_service.errors import (
    GrantRefused,
    InvalidClient,
    InvalidRequest,
    PayloadTooLarge,
    RefreshRefused,
    ServiceError,
    Unavailable,
    UnsupportedMediaType,
)

OAUTH_REFUSALS: dict[int, tuple[str, str, ServiceError]] = {
    400: (
        "OAuthRefused",
        "`invalid_request`, or what was asked for is refused: `invalid_grant`, `invalid_scope`, `invalid_target`, "
        "`unauthorized_client`, `unsupported_grant_type`.",
        InvalidRequest("The body holds a parameter twice.", fields=(("scope", "is there twice"),)),
    ),
    401: (
        "InvalidClient",
        "`invalid_client`: the client is unknown, or its secret is missing or wrong.",
        InvalidClient("an example"),
    ),
    413: ("OAuthTooLarge", "`invalid_request`: the body is over the limit.", PayloadTooLarge(MAX_BYTES)),
    415: ("OAuthNotAForm", "`invalid_request`: the body is not a form.", UnsupportedMediaType(MEDIA_TYPE)),
    503: (
        "OAuthUnavailable",
        "`temporarily_unavailable`: a store is away or too busy. No token was spent: try again.",
        Unavailable("an example"),
    ),
}
"""For the OpenAPI document. Status: the name of the component, what it means, and a refusal that shows it."""

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
    headers = {"Cache-Control": "no-store"}
    status, error = exc.status, "invalid_request"
    description = exc.detail
    match exc:
        case InvalidClient():
            error = exc.code
            headers["WWW-Authenticate"] = f'Basic realm="{REALM}", charset="UTF-8"'
        case GrantRefused():
            error = exc.code
        case RefreshRefused():
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
