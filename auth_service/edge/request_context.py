"""What every request gets: an id, its client's address, security headers, one log line and metrics. Pure ASGI."""

import re
import time
from collections.abc import Sequence
from functools import cache
from ipaddress import IPv4Network, IPv6Network
from uuid import uuid4

import structlog
from prometheus_client import Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from auth_service.edge.proxies import client_address
from auth_service.edge.security_headers import security_headers
from auth_service.metrics import HTTP_REQUESTS, HTTP_SECONDS

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "PUT"})
_NO_ROUTE = "(none)"

_log = structlog.get_logger(__name__)


@cache
def _counted(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """Looked up once for each: there are as many as there are routes, methods and answers."""
    # Created at 0 in advance: Prometheus sees no increase in the first sample of a new series.
    for failure in (500, 503):
        HTTP_REQUESTS.labels(method, route, failure)
    return HTTP_REQUESTS.labels(method, route, status), HTTP_SECONDS.labels(route)


class RequestContext:
    """The outermost middleware. Sets `client_address` and `request_id` in the request's state.

    The route template, for the log and the metrics, is what the endpoint leaves under `route_template` in the scope:
    a path as it came is input, and input is neither logged nor made a label.
    """

    def __init__(
        self, app: ASGIApp, *, trusted_proxies: Sequence[IPv4Network | IPv6Network], secure: bool, quiet: bool = False
    ) -> None:
        self._app = app
        self._trusted_proxies = trusted_proxies
        self._quiet = quiet
        self._headers = security_headers(secure=secure)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        asked_id = Headers(scope=scope).get("x-request-id", "")
        request_id = asked_id if _REQUEST_ID.fullmatch(asked_id) else uuid4().hex
        scope["state"] = {
            **scope.get("state", {}),
            "request_id": request_id,
            "client_address": client_address(scope, self._trusted_proxies),
        }
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        status = 0
        streaming = False

        async def send_with_headers(message: Message) -> None:
            nonlocal status, streaming
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                streaming = headers.get("content-type", "").startswith("text/event-stream")
                if streaming:
                    # It may stay open for days: what counts is how long its beginning took.
                    self._record(scope, status, time.perf_counter() - began)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            if not streaming:
                self._record(scope, status, time.perf_counter() - began)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "(other)"
        route = scope.get("route_template", _NO_ROUTE)
        requests, durations = _counted(method, route, status)
        requests.inc()
        durations.observe(seconds)
        if not self._quiet:
            _log.info("request", method=method, route=route, status=status, duration_ms=round(seconds * 1000, 1))
