"""`create_app`: the example put together. A service of yours needs these three things: a verifier, its lifespan, and
the middleware; the rest of this package is what such a service might offer.
"""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute

from auth_service.verifier import BearerMiddleware, Verifier
from gateway_example import api, page
from gateway_example.forward_auth import verify, verify_original
from gateway_example.live import live
from gateway_example.security_headers import SecurityHeaders

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
"""Some proxies ask with the method of the request that they hold back."""


def create_app(verifier: Verifier) -> Starlette:
    """The gateway; its lifespan opens and closes `verifier`."""
    return Starlette(
        routes=[
            *page.routes(issuer=verifier.issuer),
            Route("/api/public", api.public),
            Route("/api/me", api.me),
            Route("/api/reports", api.reports),
            Route("/api/transfers", api.transfer, methods=["POST"]),
            WebSocketRoute("/api/live", live),
            Route("/verify", verify, methods=_METHODS),
            Route("/verify/{path:path}", verify_original, methods=_METHODS),
            Route("/healthz", _alive),
        ],
        middleware=[
            Middleware(SecurityHeaders, issuer=verifier.issuer),
            Middleware(BearerMiddleware, verifier=verifier),
        ],
        lifespan=verifier.lifespan,
    )


async def _alive(_request: Request) -> Response:
    """For a liveness probe: it asks nobody, since a restart mends no other service."""
    return JSONResponse({"status": "ok"})
