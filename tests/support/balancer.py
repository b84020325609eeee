"""A TCP load balancer on loopback that fails as networks do: what lies between the issuer's name and its processes."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

_Result = TypeVar("_Result")


class Balancer:
    """Spreads connections over `targets` (ports), passing over one that refuses. Runs in a thread of its own."""

    def __init__(self, targets: list[int], *, port: int = 0) -> None:
        self.targets = targets
        """May be changed: new connections go where it says then."""
        self._turn = 0
        self._pairs: set[_Pair] = set()
        self._held: set[_Pair] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = self._run(self._listen(port))

    def hold(self) -> int:
        """The connections there are carry nothing from now on, and nobody is told: they are half open. New ones work.

        Answers how many.
        """
        return self._run(self._hold())

    def cut(self) -> int:
        """Reset the connections there are, those that are held too; new ones work. Answers how many."""
        return self._run(self._cut())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, action: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(action, self._loop).result(10)

    async def _listen(self, port: int) -> int:
        self._server = await self._loop.create_server(lambda: _Client(self._joined), "127.0.0.1", port)
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    async def _hold(self) -> int:
        held, self._pairs = self._pairs, set()
        for pair in held:
            pair.held = True
        self._held |= held  # kept, or the connections would be closed with them
        return len(held)

    async def _cut(self) -> int:
        cut, self._pairs, self._held = self._pairs | self._held, set(), set()
        for pair in cut:
            pair.abort()
        return len(cut)

    async def _close(self) -> None:
        self._server.close()
        await self._cut()
        await asyncio.sleep(0)  # what was aborted is closed in the loop's next turn

    async def _joined(self, client: "_Client") -> None:
        """Join a new client to the next target that takes it."""
        for _ in self.targets:
            self._turn += 1
            target = self.targets[self._turn % len(self.targets)]
            pair = _Pair(client, self._pairs)
            try:
                await self._loop.create_connection(lambda pair=pair: pair.server, "127.0.0.1", target)  # type: ignore[misc]
            except OSError:
                continue
            return
        client.transport.abort()


class _End(asyncio.Protocol):
    """One end of a pair."""

    transport: asyncio.Transport
    pair: "_Pair | None" = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert self.pair is not None
        if not self.pair.held:
            self.pair.other(self).transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.pair is not None and not self.pair.held:
            self.pair.pairs.discard(self.pair)
            self.pair.other(self).transport.close()


class _Client(_End):
    """The end towards whoever connected; what it sends before there is another end waits."""

    def __init__(self, joined: Any) -> None:
        self._join = joined
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._joining = asyncio.ensure_future(self._join(self))

    def data_received(self, data: bytes) -> None:
        if self.pair is None:
            self._early.append(data)
        else:
            super().data_received(data)

    def paired(self, pair: "_Pair") -> None:
        self.pair = pair
        for data in self._early:
            pair.server.transport.write(data)
        if self.transport.is_closing():
            pair.server.transport.close()


class _Server(_End):
    """The end towards a process of the service."""

    def __init__(self, pair: "_Pair") -> None:
        self._joins = pair

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.pair = self._joins
        self.pair.pairs.add(self.pair)
        self.pair.client.paired(self.pair)


class _Pair:
    """Two connections, each the continuation of the other."""

    def __init__(self, client: _Client, pairs: set["_Pair"]) -> None:
        self.client = client
        self.server = _Server(self)
        self.pairs = pairs
        self.held = False

    def other(self, end: _End) -> _End:
        return self.server if end is self.client else self.client

    def abort(self) -> None:
        for end in (self.client, self.server):
            end.transport.abort()
