"""The last resort: a fault of our own becomes an answer and a log line, and neither tells what the request held."""

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from auth_service.edge.problems import internal_error

_log = structlog.get_logger(__name__)


class UnexpectedErrors:
    """Answers 500 for whatever escapes an endpoint. Pure ASGI; the innermost, so that its answer gets CORS headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            _log.exception("unexpected_error")
            if begun:
                raise  # only cutting the connection says that the answer is not whole
            await internal_error()(scope, receive, send)
