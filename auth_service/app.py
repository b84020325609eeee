"""The composition root: every part of the service is made and joined here, and opened and closed by its lifespan."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from types import FrameType

import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import Receive, Scope, Send

from auth_service import __version__
from auth_service.accounts.passwords import PasswordHasher
from auth_service.accounts.sign_in import SignIn
from auth_service.accounts.users import Users
from auth_service.edge.origins import Origins
from auth_service.edge.problems import EXCEPTION_HANDLERS
from auth_service.edge.request_context import RequestContext
from auth_service.edge.unexpected_errors import UnexpectedErrors
from auth_service.endpoints.bearer import BearerAuthentication
from auth_service.endpoints.internal.administrator import AdminAuthentication
from auth_service.endpoints.internal.audit_events import AuditEndpoints
from auth_service.endpoints.internal.health import HealthEndpoints
from auth_service.endpoints.internal.metrics import MetricsEndpoints
from auth_service.endpoints.internal.sessions import SessionAdministration
from auth_service.endpoints.internal.users import UserAdministration
from auth_service.endpoints.operation import Operation, routes
from auth_service.endpoints.presented import PresentedSessions
from auth_service.endpoints.public.account import AccountEndpoints
from auth_service.endpoints.public.discovery import DiscoveryEndpoints
from auth_service.endpoints.public.documentation import DocumentationEndpoints
from auth_service.endpoints.public.revocations import RevocationEndpoints
from auth_service.endpoints.public.sessions import SessionEndpoints
from auth_service.endpoints.public.sign_in import SignInEndpoints
from auth_service.errors import Unavailable
from auth_service.jobs import Jobs
from auth_service.keys.encryption import KeyCipher, WrongEncryptionKey
from auth_service.keys.key_ring import KeyRing
from auth_service.keys.store import SigningKeyStore
from auth_service.openapi import openapi_document
from auth_service.pruning import pruning_jobs
from auth_service.readiness import Readiness
from auth_service.revocation.announcer import Announcer
from auth_service.revocation.feed import RevocationFeed
from auth_service.revocation.follower import Follower
from auth_service.revocation.live_set import LiveSet
from auth_service.revocation.stream import BLOCK, StreamReader, StreamWriter
from auth_service.sessions.checkpoint import CheckpointWriter
from auth_service.sessions.ending import SessionEnding
from auth_service.sessions.issuing import TokenIssuer
from auth_service.sessions.refresh import RefreshProtocol
from auth_service.sessions.rotation import RotationStore
from auth_service.sessions.store import SessionStore
from auth_service.settings import Settings
from auth_service.stores.clock import Clock
from auth_service.stores.database import Database
from auth_service.stores.redis import UnsuitableRedis, open_blocking_redis, open_redis, require_suitable

_FIRST_ANSWER = 5.0
"""Seconds to wait for the stores before serving without them: probes and the JWKS must answer whatever happens."""
_RETRY = 1.0

_log = structlog.get_logger(__name__)


class Parts:
    """The collaborators below the endpoints, joined. The command line uses them without any HTTP."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self.database = Database(settings.database_url.get_secret_value(), clock)
        self.redis = open_redis(settings.redis_url.get_secret_value())
        cipher = KeyCipher([key.get_secret_value() for key in settings.key_encryption_keys])
        self.key_store = SigningKeyStore(self.database, cipher, key_size=settings.rsa_key_size)
        self.keys = KeyRing()
        self.rotations = RotationStore(
            self.redis, window=settings.refresh_replay_window, idle_life=settings.refresh_token_ttl
        )
        self.sessions = SessionStore(self.database, settings)
        self.live_set = LiveSet()
        self.ending = SessionEnding(self.database, self.rotations, Announcer(self.live_set, StreamWriter(self.redis)))
        self.checkpoints = CheckpointWriter(self.database)
        self.tokens = TokenIssuer(settings, self.keys)
        self.passwords = PasswordHasher()
        self.users = Users(self.database, self.sessions, self.ending, self.passwords)

    async def open(self) -> None:
        await self.database.open()

    async def close(self) -> None:
        self.passwords.close()
        await self.redis.aclose()
        await self.database.close()


class Application:
    """Both ports of the service as one ASGI application. `public` and `internal` are the apps behind them."""

    def __init__(
        self,
        parts: Parts,
        follower: Follower,
        feed: RevocationFeed,
        jobs: Jobs,
        public: Starlette,
        internal: Starlette,
        readiness: Readiness,
    ) -> None:
        self.parts = parts
        self.follower = follower
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
        self.jobs.start()
        await self.follower.start()
        boot = asyncio.create_task(self._boot())
        try:
            await asyncio.wait({boot}, timeout=_FIRST_ANSWER)
            with self._draining_begun_by_signals():
                yield
        finally:
            self._drain()
            boot.cancel()
            await asyncio.wait({boot})
            try:
                await self.jobs.stop()
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
        # Being cancelled is not enough: redis-py at times swallows it, and nobody would end the next round.
        while not readiness.started and not readiness.draining:
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
        if readiness.draining:
            return
        await self.follower.loaded.wait()
        _log.info("started", version=__version__, count=len(self.parts.keys))

    async def _use_redis(self) -> None:
        await require_suitable(self.parts.redis, self.parts.settings.allow_insecure)

    async def _hold_keys(self) -> None:
        self.parts.keys.replace(await self.parts.key_store.load_or_create())

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


def create_app(settings: Settings, clock: Clock | None = None) -> Application:
    """The service, not yet open: its lifespan opens it."""
    parts = Parts(settings, clock or Clock())
    readiness = Readiness()
    bearer = BearerAuthentication(
        issuer=settings.issuer, client_id=settings.first_party_client_id, keys=parts.keys, sessions=parts.sessions
    )
    internal = _starlette(settings, _internal_operations(parts, readiness, bearer), middleware=[], quiet=True)
    origins = Origins(settings.issuer, settings.allowed_origins)
    follower = Follower(
        database=Database(settings.database_url.get_secret_value(), parts.database.clock, pool_size=1),
        stream=StreamReader(open_blocking_redis(settings.redis_url.get_secret_value(), block=BLOCK)),
        live_set=parts.live_set,
    )
    feed = RevocationFeed(parts.live_set, follower.freshness, issuer=settings.issuer)
    operations, assets = _public_operations(parts, feed, origins, bearer)
    public = _starlette(settings, [*operations, *assets], middleware=[origins.cors()], quiet=False)
    jobs = Jobs(parts.database, list(pruning_jobs(settings)))
    application = Application(parts, follower, feed, jobs, public, internal, readiness)
    public.router.lifespan_context = lambda _app: application.lifespan()
    return application


def _internal_operations(parts: Parts, readiness: Readiness, bearer: BearerAuthentication) -> list[Operation]:
    settings = parts.settings
    admin = AdminAuthentication(issuer=settings.issuer, keys=parts.keys, bearer=bearer, database=parts.database)
    operations = [
        *HealthEndpoints(
            readiness=readiness, stores={"postgresql": parts.database.now, "redis": parts.rotations.answers}
        ).operations(),
        *MetricsEndpoints().operations(),
        *UserAdministration(
            users=parts.users,
            passwords=parts.passwords,
            admin=admin,
            password_min_length=settings.password_min_length,
        ).operations(),
        *SessionAdministration(
            users=parts.users, sessions=parts.sessions, ending=parts.ending, admin=admin
        ).operations(),
        *AuditEndpoints(database=parts.database, admin=admin).operations(),
        *DocumentationEndpoints(document=lambda: openapi_document(operations, server="/")).document(),
    ]
    return operations


def _public_operations(
    parts: Parts, feed: RevocationFeed, origins: Origins, bearer: BearerAuthentication
) -> tuple[list[Operation], list[Operation]]:
    settings = parts.settings
    presented = PresentedSessions(issuer=settings.issuer, keys=parts.keys)
    sign_in = SignIn(
        database=parts.database,
        users=parts.users,
        passwords=parts.passwords,
        sessions=parts.sessions,
        ending=parts.ending,
        rotations=parts.rotations,
        tokens=parts.tokens,
        password_min_length=settings.password_min_length,
    )
    refresh = RefreshProtocol(
        issuer=settings.issuer,
        database=parts.database,
        keys=parts.keys,
        sessions=parts.sessions,
        rotations=parts.rotations,
        checkpoints=parts.checkpoints,
        ending=parts.ending,
        tokens=parts.tokens,
    )
    documentation = DocumentationEndpoints(document=lambda: openapi_document(operations, server=settings.issuer))
    operations = [
        *SignInEndpoints(sign_in=sign_in, presented=presented, origins=origins).operations(),
        *SessionEndpoints(
            refresh=refresh,
            sessions=parts.sessions,
            ending=parts.ending,
            users=parts.users,
            bearer=bearer,
            presented=presented,
            origins=origins,
        ).operations(),
        *AccountEndpoints(
            users=parts.users, bearer=bearer, password_min_length=settings.password_min_length
        ).operations(),
        *DiscoveryEndpoints(issuer=settings.issuer, keys=parts.keys).operations(),
        *RevocationEndpoints(feed=feed).operations(),
        *documentation.operations(),
    ]
    return operations, list(documentation.assets())


def _starlette(
    settings: Settings, operations: list[Operation], *, middleware: list[Middleware], quiet: bool
) -> Starlette:
    context = Middleware(
        RequestContext,
        trusted_proxies=settings.trusted_proxies,
        secure=settings.issuer.startswith("https://"),
        quiet=quiet,
    )
    app = Starlette(
        routes=routes(operations),
        middleware=[context, *middleware, Middleware(UnexpectedErrors)],
        exception_handlers=dict(EXCEPTION_HANDLERS),
    )
    app.router.redirect_slashes = False
    return app
