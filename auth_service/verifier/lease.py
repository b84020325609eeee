"""What outlives a request, a WebSocket or an event stream, is held only for as long as its access token is good.

When the token is revoked or expires the connection is ended, and the application sees a client that has gone.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Send
from starlette.websockets import WebSocketDisconnect

from auth_service.verifier.challenge import POLICY_VIOLATION
from auth_service.verifier.credentials import SUBPROTOCOL
from auth_service.verifier.token_cache import VerifiedToken
from auth_service.verifier.verifier import Verifier

_GONE = "the access token of this connection is no longer good"
_PATIENCE = 1.0  # seconds for a client that does not read
_CLIENT_GONE = (OSError, ClientDisconnect, WebSocketDisconnect)


class EventStreamLease:
    """Between server and application for an HTTP request; ends the answer with the token if it is an event stream."""

    __slots__ = ("_ending", "_send", "_stop", "_verified", "_verifier", "receive")

    def __init__(self, verifier: Verifier, verified: VerifiedToken, receive: Receive, send: Send) -> None:
        self._verifier = verifier
        self._verified = verified
        self.receive = receive
        self._send = send
        self._stop: Callable[[], None] | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def opened(self) -> bool:
        """Whether there is something to close: a request that was no stream costs nothing more."""
        return self._stop is not None

    def explains(self, exc: Exception) -> bool:
        """Whether `exc` is only what the application made of a client that has gone."""
        return self._ending is not None and isinstance(exc, _CLIENT_GONE)

    async def aclose(self) -> None:
        await _let_go(self._stop, self._ending)

    async def send(self, message: Message) -> None:
        if self._ending is not None:
            raise OSError(_GONE)
        if self._stop is not None and not message.get("more_body"):
            self._stop()  # it ends by itself: what the application does after that is not ours to end
        await self._send(message)
        if message["type"] == "http.response.start" and _is_event_stream(message.get("headers", ())):
            self._stop = self._verifier.watch(self._verified, self._end)

    def _end(self) -> None:
        # The end of the answer: a server then tells the application, through `receive`, that the client has gone.
        self._ending = _sent(self._send, {"type": "http.response.body", "body": b""})


class WebSocketLease:
    """Between server and application for a WebSocket; closes it with 1008 when its token is no longer good."""

    __slots__ = ("_by_subprotocol", "_closing", "_receive", "_send", "_stop", "_verified", "_verifier")

    def __init__(
        self, verifier: Verifier, verified: VerifiedToken, receive: Receive, send: Send, *, by_subprotocol: bool
    ) -> None:
        self._verifier = verifier
        self._verified = verified
        self._receive = receive
        self._send = send
        self._by_subprotocol = by_subprotocol
        self._stop: Callable[[], None] | None = None
        self._closing: asyncio.Task[None] | None = None

    @property
    def opened(self) -> bool:
        """Whether there is something to close."""
        return self._stop is not None

    def explains(self, exc: Exception) -> bool:
        """Whether `exc` is only what the application made of a client that has gone."""
        return self._closing is not None and isinstance(exc, _CLIENT_GONE)

    async def aclose(self) -> None:
        await _let_go(self._stop, self._closing)

    async def receive(self) -> Message:
        if self._closing is None:
            message = await self._receive()
            if message["type"] == "websocket.disconnect" and self._stop is not None:
                self._stop()
            if self._closing is None:
                return message
        return {"type": "websocket.disconnect", "code": POLICY_VIOLATION, "reason": _GONE}

    async def send(self, message: Message) -> None:
        if self._closing is not None:
            raise OSError(_GONE)
        if message["type"] == "websocket.accept":
            if self._by_subprotocol and not message.get("subprotocol"):
                # A browser fails a handshake that answers none of the subprotocols it offered (RFC 6455 §4.1).
                message = {**message, "subprotocol": SUBPROTOCOL}
            await self._send(message)
            self._stop = self._verifier.watch(self._verified, self._end)
            return
        if message["type"] == "websocket.close" and self._stop is not None:
            self._stop()
        await self._send(message)

    def _end(self) -> None:
        close = {"type": "websocket.close", "code": POLICY_VIOLATION, "reason": _GONE}
        self._closing = _sent(self._send, close)


def _sent(send: Send, message: Message) -> asyncio.Task[None]:
    async def attempt() -> None:
        with contextlib.suppress(OSError):  # the client has gone by itself
            await send(message)

    return asyncio.ensure_future(attempt())


async def _let_go(stop: Callable[[], None] | None, ending: asyncio.Task[None] | None) -> None:
    if stop is not None:
        stop()
    if ending is not None:
        # A server breaks the connection when the application returns: the end must have been sent by then.
        await asyncio.wait({ending}, timeout=_PATIENCE)


def _is_event_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    for name, value in headers:
        if name.lower() == b"content-type":
            return value.lower().startswith(b"text/event-stream")
    return False
