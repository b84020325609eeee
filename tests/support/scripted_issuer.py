"""An issuer on loopback that does as it is told: answers well, fails, hangs, lies. `FakeIssuer` signs for it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from auth_service.verifier.revocations import Kind, revocation_id
from auth_service.verifier.testing import FakeIssuer

METADATA = "/.well-known/oauth-authorization-server"
JWKS = "/.well-known/jwks.json"
FEED = "/revocations"

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]

EVENT_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


class ScriptedIssuer:
    """Answers as an issuer should, but for what `answers` holds, by path. HTTP on real sockets."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[str] = []
        self.revoked: list[list[Any]] = []
        self.heartbeat = 0.2
        self._feeds: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.fake: FakeIssuer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen; at the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Be down: refuse connections, and break those there are."""
        assert self._server is not None
        self._server.close()
        serving = set(self._serving)
        for task in serving:
            task.cancel()
        if serving:
            await asyncio.wait(serving)

    def asked(self, path: str) -> int:
        """How often `path` was asked for."""
        return self.requests.count(path)

    @property
    def open_feeds(self) -> int:
        return len(self._feeds)

    def revoke(self, kind: Kind, claim: str) -> None:
        """Revoke, and tell every open feed."""
        entry = [kind, revocation_id(claim), self.fake.clock.time() + 3660]
        self.revoked.append(entry)
        self.tell("revoke", [entry])

    def tell(self, kind: str, data: Any) -> None:
        """Send an event to every open feed."""
        for feed in self._feeds:
            feed.write(event(kind, data))

    def drop_feeds(self) -> None:
        """Break every open feed."""
        for feed in self._feeds:
            feed.transport.abort()

    def silence_feeds(self) -> None:
        """Say nothing more on the feeds that are open, and leave them open: as seen through a half-open connection."""
        self._feeds.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            while True:
                path = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode()
                self.requests.append(path)
                answer = self.answers.get(path) or (self._follow if path == FEED else self._document_of(path))
                await answer(writer)
                await writer.drain()
        except _Ended:
            writer.close()  # what was written still arrives
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._serving.discard(task)
            self._feeds.discard(writer)

    def _document_of(self, path: str) -> Answer:
        async def answer(writer: asyncio.StreamWriter) -> None:
            found = await self.fake.transport.handle_async_request(httpx2.Request("GET", f"{self.url}{path}"))
            await document(found.content, status=found.status_code)(writer)

        return answer

    async def _follow(self, writer: asyncio.StreamWriter) -> None:
        self._open_feed(writer, self.heartbeat)
        while writer in self._feeds:
            writer.write(event("beat", {"age": 0}))
            await writer.drain()
            await asyncio.sleep(self.heartbeat)
        await hang(writer)

    async def quiet(self, writer: asyncio.StreamWriter) -> None:
        """A feed without beats but those that `tell` sends; what it may be silent for is long."""
        self._open_feed(writer, 10)
        while True:
            writer.write(b": nothing to say\n\n")
            await writer.drain()
            await asyncio.sleep(0.5)

    def _open_feed(self, writer: asyncio.StreamWriter, heartbeat: float) -> None:
        writer.write(EVENT_STREAM + hello(self.url, heartbeat) + event("revoke", self.revoked) + event("live", {}))
        self._feeds.add(writer)


@asynccontextmanager
async def scripted_issuer(*, audience: str = "orders") -> AsyncIterator[ScriptedIssuer]:
    """An issuer of its own, listening for as long as the body runs."""
    issuer = ScriptedIssuer()
    await issuer.start()
    issuer.fake = FakeIssuer(issuer.url, audience=audience)
    try:
        yield issuer
    finally:
        await issuer.stop()


def document(
    content: bytes | str | dict[str, Any] | list[Any],
    *,
    status: int = 200,
    content_type: str = "application/json",
    headers: tuple[str, ...] = (),
) -> Answer:
    """The answer that is `content`."""
    body = (
        content
        if isinstance(content, bytes)
        else (content if isinstance(content, str) else json.dumps(content)).encode()
    )

    async def answer(writer: asyncio.StreamWriter) -> None:
        head = [
            f"HTTP/1.1 {status} Whatever",
            f"Content-Type: {content_type}",
            f"Content-Length: {len(body)}",
            *headers,
        ]
        writer.write("\r\n".join([*head, "", ""]).encode("latin-1") + body)

    return answer


def stream(*parts: bytes, pause: float = 0.0, head: bytes = EVENT_STREAM, stay: bool = False) -> Answer:
    """The answer that is `parts`, with pauses between them, then the end of the connection, or with `stay` silence."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
        if stay:
            await hang(writer)
        await writer.drain()
        raise _Ended

    return answer


async def hang(_writer: asyncio.StreamWriter) -> None:
    """No answer, and no end of the connection either."""
    await asyncio.Event().wait()


def hello(issuer: str, heartbeat: float = 1) -> bytes:
    return event("hello", {"iss": issuer, "heartbeat": heartbeat})


def event(kind: str, data: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


async def until(holds: Callable[[], Any], *, seconds: float = 10) -> None:
    """Return when `holds()`; fail after `seconds`."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 any condition, told by nobody
            await asyncio.sleep(0.005)


class _Ended(ConnectionError):
    """The answer is over, and the connection with it."""
