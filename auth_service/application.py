"""The running service: both ports as one ASGI application, opened, started and drained by its lifespan."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from types import FrameType

import structlog
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from auth_service import __version__
from auth_service.background_tasks import end
from auth_service.errors import Unavailable
from auth_service.jobs import Jobs
from auth_service.keys.encryption import WrongEncryptionKey
from auth_service.keys.follower import KeyFollower
from auth_service.parts import Parts
from auth_service.readiness import Readiness
from auth_service.revocation.feed import RevocationFeed
from auth_service.revocation.follower import Follower
from auth_service.stores.redis import UnsuitableRedis, require_suitable

_FIRST_ANSWER = 5.0
"""Seconds to wait for the stores before serving without them: probes and the JWKS must answer whatever happens."""
_RETRY = 1.0

_log = structlog.get_logger(__name__)


class Application:
    """Both ports of the service as one ASGI application. `public` and `internal` are the apps behind them."""

    def __init__(
        self,
        parts: Parts,
        follower: Follower,
        key_follower: KeyFollower,
        feed: RevocationFeed,
        jobs: Jobs,
        public: Starlette,
        internal: Starlette,
        readiness: Readiness,
    ) -> None:
        self.parts = parts
        self.follower = follower
        self.key_follower = key_follower
        self.feed = feed
        self.jobs = jobs
        self.public = public
        self.internal = internal
        self.readiness = readiness
        self.internal_port: int | None = None
        """Set by whoever binds the sockets: which port a request came in on tells the apps apart."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        server = scope.get("server")
        if server is not None and server[1] is not None and server[1] == self.internal_port:
            await self.internal(scope, receive, send)
        else:
            await self.public(scope, receive, send)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Open everything, serve, then write down and close everything."""
        await self.parts.open()
        self.parts.checkpoints.start()
        await self.follower.start()
        boot = asyncio.create_task(self._boot())
        try:
            await asyncio.wait({boot}, timeout=_FIRST_ANSWER)
            with self._draining_begun_by_signals():
                yield
        finally:
            self._drain()
            await end({boot})
            try:
                await self.jobs.stop()
                await self.key_follower.stop()
                await self.follower.stop()
                await self.parts.checkpoints.stop()
            finally:
                await self.parts.close()
            _log.info("stopped")

    async def _boot(self) -> None:
        """Wait until the stores and the keys have answered once, however long it takes."""
        readiness = self.readiness
        steps: dict[str, Callable[[], Awaitable[object]]] = {
            "postgresql": self.parts.database.now,
            "redis": self._use_redis,
            "keys": self._hold_keys,
        }
        while not readiness.started:
            problems = {}
            for name, step in steps.items():
                try:
                    await step()
                    readiness.answered.add(name)
                except (Unavailable, UnsuitableRedis, WrongEncryptionKey) as exc:
                    problems[name] = str(exc)
                except Exception as exc:
                    # Not one that is expected; whoever mends it should not have to restart every process as well.
                    problems[name] = type(exc).__name__
            for name, found in problems.items():
                if readiness.problems.get(name) != found:
                    _log.error("not_started", store=name, reason=found)
            readiness.problems = problems
            if not readiness.started:
                await asyncio.sleep(_RETRY)
        await self.follower.loaded.wait()
        _log.info("started", version=__version__, count=len(self.parts.keys))

    async def _use_redis(self) -> None:
        await require_suitable(self.parts.redis, self.parts.settings.allow_insecure)

    async def _hold_keys(self) -> None:
        self.key_follower.hold(await self.parts.key_life_cycle.ensure())
        if "keys" not in self.readiness.answered:
            # Whatever else is still away: a key that is revoked meanwhile must be heard of.
            self.key_follower.start()
            self.jobs.start()

    def _drain(self) -> None:
        self.readiness.draining = True
        self.feed.close()

    @contextlib.contextmanager
    def _draining_begun_by_signals(self) -> Iterator[None]:
        """The server waits until every open stream has ended: so they are told at once, before its own handler runs."""
        servers_own = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        if threading.current_thread() is not threading.main_thread() or not callable(servers_own[signal.SIGTERM]):
            yield
            return
        loop = asyncio.get_running_loop()

        def drain(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self._drain)
            handler = servers_own[signal.Signals(number)]
            if callable(handler):
                handler(number, frame)

        for number in servers_own:
            signal.signal(number, drain)
        try:
            yield
        finally:
            for number, handler in servers_own.items():
                signal.signal(number, handler)
