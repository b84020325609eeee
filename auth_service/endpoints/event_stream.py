"""Server-sent events (WHATWG HTML §9.2) as a response: sent as they come, until they end or the client is gone."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

MEDIA_TYPE = "text/event-stream"


class EventStream(Response):
    """`events` yields whole events; that the client is gone is noticed when the next one comes.

    `place` is held while the stream is open; what it raises when it is entered is the answer.
    """

    media_type = MEDIA_TYPE

    def __init__(self, events: AsyncGenerator[bytes, None], *, place: AbstractContextManager[None]) -> None:
        self.status_code = 200
        self._events = events
        self._place = place
        # nginx would keep events back to fill its buffer.
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Vary": "Accept"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope["method"] != "HEAD":
                gone = asyncio.create_task(_disconnected(receive))
                try:
                    async with aclosing(self._events):
                        async for event in self._events:
                            if gone.done():
                                break
                            await send({"type": "http.response.body", "body": event, "more_body": True})
                finally:
                    gone.cancel()
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
