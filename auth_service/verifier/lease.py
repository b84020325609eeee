"""A WebSocket or an event stream is kept open only for as long as its access token is good.

When the token is revoked or expires the connection is ended, and the application sees a client that has gone.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from auth_service.verifier.challenge import POLICY_VIOLATION
from auth_service.verifier.credentials import SUBPROTOCOL, take_offered_access_token
from auth_service.verifier.token_cache import VerifiedToken
from auth_service.verifier.verifier import Verifier

_GONE = "the access token of this connection is no longer good"
_PATIENCE = 1.0  # seconds for a client that does not read
_CLIENT_GONE = (OSError, ClientDisconnect, WebSocketDisconnect)


class _Lease:
    """Between server and application for one connection, whose end is sent at most once."""

    _ending: asyncio.Task[None] | None = None
    _stop: Callable[[], None] | None = None

    def __init__(self, verifier: Verifier, verified: VerifiedToken, send: Send) -> None:
        self._verifier = verifier
        self._verified = verified
        self._send = send

    def explains(self, exc: Exception) -> bool:
        """Whether `exc` is only what the application made of a client that has gone."""
        if isinstance(exc, ExceptionGroup):  # of a task group: everything in it
            _, others = exc.split(_CLIENT_GONE)
            return self._ending is not None and others is None
        return self._ending is not None and isinstance(exc, _CLIENT_GONE)

    async def aclose(self) -> None:
        """Undo what was begun, and let an end that is being sent get out."""
        if self._stop is not None:
            self._stop()
        if self._ending is not None:
            # A server breaks the connection when the application returns: the end must have been sent by then.
            await asyncio.wait({self._ending}, timeout=_PATIENCE)

    def _begin(self, end: Message) -> None:
        """From now on the connection is ended, with `end`, when its token is no longer good."""
        self._stop = self._verifier.watch(self._verified, lambda: self._end(end))

    def _end(self, end: Message) -> None:
        self._ending = asyncio.ensure_future(_sent(self._send, end))


class EventStreamLease(_Lease):
    """For an answer that is an event stream: ends it with the token.

    The server itself tells the application, through its own `receive`, that the client has gone once that is ended.
    """

    async def send(self, message: Message) -> None:
        if self._ending is not None:
            raise OSError(_GONE)
        if self._stop is None:  # the beginning of the answer
            await self._send(message)
            self._begin({"type": "http.response.body", "body": b""})
            return
        if not message.get("more_body"):
            self._stop()  # it ends by itself: what the application does after that is not ours to end
        await self._send(message)


class WebSocketLease(_Lease):
    """For a WebSocket: closes it with 1008 when its token is no longer good."""

    def __init__(self, verifier: Verifier, verified: VerifiedToken, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(verifier, verified, send)
        self._receive = receive
        self._by_subprotocol = take_offered_access_token(scope)

    async def receive(self) -> Message:
        if self._ending is None:
            message = await self._receive()
            if message["type"] == "websocket.disconnect" and self._stop is not None:
                self._stop()
            if self._ending is None:
                return message
        return {"type": "websocket.disconnect", "code": POLICY_VIOLATION, "reason": _GONE}

    async def send(self, message: Message) -> None:
        if self._ending is not None:
            raise OSError(_GONE)
        if message["type"] == "websocket.accept":
            if self._by_subprotocol and not message.get("subprotocol"):
                # A browser fails a handshake that answers none of the subprotocols it offered (RFC 6455 §4.1).
                message = {**message, "subprotocol": SUBPROTOCOL}
            await self._send(message)
            self._begin({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": _GONE})
            return
        if message["type"] == "websocket.close" and self._stop is not None:
            self._stop()
        await self._send(message)


async def _sent(send: Send, message: Message) -> None:
    with contextlib.suppress(OSError):  # the client has gone by itself
        await send(message)


def is_event_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether an answer with these headers goes on for as long as the connection does."""
    for name, value in headers:
        # Most values are too short: nothing is made of them.
        if len(value) >= 17 and value[:17].lower() == b"text/event-stream" and name.lower() == b"content-type":
            return True
    return False
