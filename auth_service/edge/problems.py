"""The one place where a refusal becomes an HTTP answer: problem details (RFC 9457) with a stable `code`."""

import json
from http import HTTPStatus

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ExceptionHandler

from auth_service.errors import InsufficientScope, InvalidBearer, ServiceError, UnreadableBearer

MEDIA_TYPE = "application/problem+json"
REALM = "auth-service"

_log = structlog.get_logger(__name__)

_CODES = {404: "not_found", 405: "method_not_allowed"}
_DETAILS = {404: "There is nothing here.", 405: "This address does not take that method."}


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    fields: tuple[tuple[str, str], ...] = (),
    headers: dict[str, str] | None = None,
) -> Response:
    """A problem+json answer. `type` is `about:blank` (RFC 9457 §4.2.1): `code` says what is meant."""
    members: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    if fields:
        members["errors"] = [{"field": field, "message": message} for field, message in fields]
    return Response(json.dumps(members), status, headers, MEDIA_TYPE)


def render(exc: ServiceError) -> Response:
    """The answer to a refusal."""
    headers = {}
    challenge = f'Bearer realm="{REALM}"'
    told = f'{challenge}, error="{exc.code}", error_description="{exc.detail}"'
    match exc:
        case InsufficientScope():
            headers["WWW-Authenticate"] = f'{told}, scope="{exc.scope}"'
        case InvalidBearer(presented=True) | UnreadableBearer():
            headers["WWW-Authenticate"] = told
        case _ if exc.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = challenge
    if exc.retry_after is not None:
        headers["Retry-After"] = str(exc.retry_after)
    return problem(exc.status, exc.code, exc.detail, fields=exc.fields, headers=headers)


def internal_error() -> Response:
    """The answer to a fault of our own; what happened is in the log alone."""
    return problem(500, "internal_error", "Something went wrong here. The request id names it in the log.")


async def _service_error(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, ServiceError)
    log = _log.warning if exc.status >= 500 else _log.info
    log("refused", problem=exc.code, reason=exc.reason)
    return render(exc)


async def _http_exception(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    code = _CODES.get(exc.status_code, "invalid_request")
    detail = _DETAILS.get(exc.status_code, HTTPStatus(exc.status_code).phrase)
    return problem(exc.status_code, code, detail, headers=dict(exc.headers or {}))


async def _client_gone(_request: Request, _exc: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


EXCEPTION_HANDLERS: dict[type[Exception], ExceptionHandler] = {
    ServiceError: _service_error,
    HTTPException: _http_exception,
    ClientDisconnect: _client_gone,
}
