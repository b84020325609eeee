"""The verifier: one access token in, its claims out, without a look-up per request.

Joins the strict reader (`jws.py`, `claims.py`), the issuer's keys (`key_source.py`) and its revocations (`feed.py`).
Nothing here knows of requests: `middleware.py` and the adapters beside it do.
"""

import asyncio
import contextlib
import logging
import math
import os
import sys
import threading
from asyncio import get_running_loop
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping
from hashlib import sha256
from typing import Any, Final, Self, TypeVar

import httpx2
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from auth_service.verifier.claims import ACCESS_TOKEN_TYPES, MAX_LEEWAY, AccessTokenClaims
from auth_service.verifier.clock import Clock, SystemClock
from auth_service.verifier.environment import verifier_options
from auth_service.verifier.errors import (
    ExpiredToken,
    KeysUnavailable,
    RevocationsUnavailable,
    RevokedToken,
    Unavailable,
    VerifierError,
)
from auth_service.verifier.feed import RevocationFeed
from auth_service.verifier.issuer_client import IssuerClient, checked_issuer
from auth_service.verifier.jws import MAX_LENGTH, CompactJWS
from auth_service.verifier.key_source import KeySource
from auth_service.verifier.metrics import Result, metrics
from auth_service.verifier.revocations import RevocationSet, watched_names
from auth_service.verifier.service_token import ClientCredentials, ServiceTokenSource
from auth_service.verifier.token_cache import TokenCache, VerifiedToken

DEFAULT_MAX_STALENESS: Final = 600.0
"""Seconds: the life of an access token, so that an outage of the issuer is not everyone's."""

_NO_HEADER = b"\0"
"""Before a token that came by itself: a header that holds one begins otherwise, so neither is found for the other."""

_START_PATIENCE = 3.0  # seconds that opening waits for keys and revocations
_ELSEWHERE_PATIENCE = 3.0  # seconds for an answer of the event loop that the verifier runs in, from another one
_REPORT_INTERVAL = 1.0
_CANCEL_INTERVAL = 0.5

_Answer = TypeVar("_Answer")

_log = logging.getLogger(__name__)


class Verifier:
    """Verifies the access tokens of one issuer for one audience.

    `issuer` is the origin that the tokens name as `iss`; keys and revocations are found from its metadata. `audience`
    is how the issuer names this service; one of several is enough. `leeway`: seconds of clock difference forgiven, at
    most 30. `max_staleness`: seconds for which the last known revocations serve while the issuer cannot be heard; None
    for ever. `cache_size`: verified tokens remembered at most. `client_id` and `client_secret`: this service's own,
    with the scope `revocations:read`, for an issuer whose feed is not public. `transport` and `clock` are for tests
    (`testing.py`).

    Open it with `lifespan` or `async with`; several times is as good as once. A verifier that nobody opened opens
    itself at the first token, and is closed with its event loop. It runs in one event loop: others that run at the
    same time are served with what is known there.
    """

    def __init__(
        self,
        issuer: str,
        *,
        audience: str | Collection[str],
        leeway: float = 5.0,
        max_staleness: float | None = DEFAULT_MAX_STALENESS,
        cache_size: int = 8192,
        client_id: str | None = None,
        client_secret: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.issuer = checked_issuer(issuer)
        self.audience = checked_audience(audience)
        if not 0 <= leeway <= MAX_LEEWAY:
            raise ValueError(f"leeway must be from 0 to {MAX_LEEWAY} seconds")
        if bool(client_id) != bool(client_secret):
            raise ValueError("client_id and client_secret belong together")
        self._credentials = ClientCredentials(client_id, client_secret) if client_id and client_secret else None
        self._leeway = leeway
        limit = checked_staleness(max_staleness)
        # What was never heard is infinitely old: that is good enough for None, and for no number.
        self._max_staleness = math.inf if limit is None else min(limit, sys.float_info.max)
        self._transport = transport
        self._set_clock(clock or SystemClock())
        self.revocations = RevocationSet()
        """What is revoked, as far as it is known here."""
        self._keys = KeySource(self._clock)
        self._service_token, self._feed = self._follower()
        self._cache = TokenCache(cache_size)
        self._watches: set[_Watch] = set()
        self._metrics = metrics()
        self._known = self._verified = 0
        """How often a token was found good, and is not counted yet: a counter's own lock costs more than the rest of a
        request with a known token."""
        self._run: _Run | None = None
        """What runs, or starts to."""
        self._running: _Run | None = None
        """The same once it has started: read by every request."""
        self._runs: set[_Run] = set()
        """It, and what ran in other event loops before and may not have ended there yet."""
        self._choosing = threading.Lock()
        self._openings = 0

    @property
    def realm(self) -> str:
        """What the challenges of refused requests name as protected (RFC 6750 §3)."""
        return self.audience[0]

    @property
    def staleness(self) -> float | None:
        """Seconds since everything revoked was last known here; None before it ever was."""
        return self._feed.age

    @classmethod
    def from_env(cls, environment: Mapping[str, str] = os.environ, **options: Any) -> Self:
        """A verifier of `AUTH_ISSUER` for `AUTH_AUDIENCE` (one name, or several with commas between them).

        Where the feed is not public: `AUTH_CLIENT_ID`, and `AUTH_CLIENT_SECRET` or the file that
        `AUTH_CLIENT_SECRET_FILE` names. Raises ValueError, which names the variable that is missing or wrong.
        """
        return cls(**{**verifier_options(environment), **options})

    async def verify(self, access_token: str) -> AccessTokenClaims:
        """The claims of a good token.

        Raises InvalidToken with the reason; Unavailable where it cannot be said, because the keys or what has been
        revoked are not known: never an InvalidToken for that. A token is bad on its own merits first.
        """
        return (await self.authenticate(access_token)).claims

    async def authenticate(self, access_token: str | bytes, digest: bytes | None = None) -> VerifiedToken:
        """As `verify`, with what `watch` needs. Bytes are a token as it was sent; `digest` is that of the header it
        came in, which is not `known`."""
        if isinstance(access_token, str):
            # One character more than may be is enough to refuse it.
            access_token = access_token[: MAX_LENGTH + 1].encode("utf-8", "surrogatepass")
        if digest is None:
            digest = sha256(_NO_HEADER + access_token).digest()
            verified = self.known(digest)
            if verified is not None:
                return verified
        running = self._running
        if running is None or running.loop is not get_running_loop():
            await self._start()
        return self._judged(access_token, digest) or await self._judged_by_fetched_key(access_token, digest)

    def known(self, digest: bytes) -> VerifiedToken | None:
        """The token that was found good in the header of this SHA-256, if it still is.

        None says nothing: `authenticate` does. Nearly every request ends here: it is one frame, and calls nothing else
        of ours.
        """
        running = self._running
        if running is None or running.loop is not get_running_loop():
            return None
        verified = self._cache.newer.get(digest) or self._cache.get(digest)
        if (
            verified is None
            # A key that has left the JWKS takes its tokens with it.
            or self._keys.held.get(verified.kid) is not verified.key
            or verified.good_until <= self._time()
            or not self.revocations.holds_none_of(verified.names)
            or self._monotonic() - self._feed.known_at > self._max_staleness
        ):
            return None
        self._known += 1
        return verified

    def require_fresh(self, max_staleness: float) -> None:
        """Raises RevocationsUnavailable if what is revoked was last known longer ago than `max_staleness` seconds."""
        age = self._feed.age
        if age is None or age > max_staleness:
            raise self._not_heard()

    def watch(self, verified: VerifiedToken, end: Callable[[], None]) -> Callable[[], None]:
        """Call `end` once, in the running event loop, when the token is revoked or expires.

        For what outlives a request. Answers how to stop watching.
        """
        watch = _Watch(asyncio.get_running_loop(), verified.good_until, end)
        self._watches.add(watch)
        watch.releases.callback(self._watches.discard, watch)
        watch.releases.callback(self.revocations.watch(verified.names, watch.tell))
        timer = watch.loop.call_later(max(watch.expires_at - self._time(), 0), watch.tell)
        watch.releases.callback(timer.cancel)
        if not self.revocations.holds_none_of(verified.names):  # meanwhile
            watch.tell()
        return watch.stop

    def end_expired(self) -> None:
        """End what is watched and has expired, after a clock that is not the system's was moved. From any thread."""
        for watch in list(self._watches):
            if watch.expires_at <= self._time():
                watch.tell()

    def receive(self, event: str, data: str) -> None:
        """Take in one event of the revocation feed that did not come over it. From any thread."""
        self._feed.receive(event, data)

    def use(self, *, transport: httpx2.AsyncBaseTransport, clock: Clock) -> None:
        """Ask another issuer, and another clock, from now on: for tests. Raises RuntimeError once it is open."""
        if self._run is not None and not self._run.loop.is_closed():
            raise RuntimeError("the verifier is open: a test must take it over before the application starts")
        self._run = self._running = None
        self._transport = transport
        self._set_clock(clock)
        self.revocations = RevocationSet()
        self._keys = KeySource(clock)
        self._service_token, self._feed = self._follower()

    def _set_clock(self, clock: Clock) -> None:
        self._clock = clock
        self._time, self._monotonic = clock.time, clock.monotonic  # every request asks both

    def _follower(self) -> tuple[ServiceTokenSource | None, RevocationFeed]:
        token = ServiceTokenSource(self._credentials, self._clock) if self._credentials else None
        return token, RevocationFeed(self.issuer, self.revocations, self._clock, token=token)

    async def open(self) -> None:
        """Start to follow the issuer, and wait a moment for its keys and its revocations.

        Never fails for an issuer that is away: that is told when there is a token to verify.
        """
        self._openings += 1
        try:
            await self._start()
        except BaseException:  # given up: what was begun for this opening alone must not go on
            await self.close()
            raise

    async def close(self) -> None:
        """Undo one `open`; after the last, nothing runs any more. What ran in another event loop ends there."""
        self._openings = max(self._openings - 1, 0)
        if self._openings:
            return
        with self._choosing:
            runs, self._runs = self._runs, set()
            self._run = self._running = None
        for ending in [run.stop() for run in runs]:
            if ending is not None:
                await asyncio.shield(ending)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncIterator[None]:
        """For `Starlette(lifespan=verifier.lifespan)`; inside a lifespan of your own, `async with verifier:`."""
        async with self:
            yield

    def _judged(
        self, access_token: bytes, digest: bytes, fetched_key: RSAPublicKey | None = None
    ) -> VerifiedToken | None:
        """The token, found good by what is known here; None where its key is neither held nor given."""
        try:
            jws = CompactJWS.parse(access_token, types=ACCESS_TOKEN_TYPES)
            key = self._keys.held.get(jws.kid) or fetched_key
            if key is None:
                return None
            claims = AccessTokenClaims.parse(
                jws.payload(key), issuer=self.issuer, audience=self.audience, now=self._time(), leeway=self._leeway
            )
            names = watched_names(claims, jws.kid)
            if not self.revocations.holds_none_of(names):
                raise RevokedToken("it has been revoked")
            if self._monotonic() - self._feed.known_at > self._max_staleness:
                raise self._not_heard()
        except VerifierError as exc:
            self._refused(exc)
            raise
        verified = VerifiedToken(claims, jws.kid, key, float(claims.expires_at + self._leeway), names)
        self._cache.put(digest, verified)
        self._verified += 1
        return verified

    async def _judged_by_fetched_key(self, access_token: bytes, digest: bytes) -> VerifiedToken:
        try:
            wanted = self._keys.key(CompactJWS.parse(access_token, types=ACCESS_TOKEN_TYPES).kid)
            run = self._run
            key = await (wanted if run is None else run.answer(wanted))
        except VerifierError as exc:
            self._refused(exc)
            raise
        # By the key that was answered: it may have been revoked since, and then the token is judged to be so too.
        verified = self._judged(access_token, digest, key)
        assert verified is not None
        return verified

    def _not_heard(self) -> RevocationsUnavailable:
        since = "yet" if self._feed.age is None else "for too long"
        return RevocationsUnavailable(f"the revocation feed has not been heard {since}")

    def _refused(self, refusal: VerifierError) -> None:
        self._metrics.verifications[_result(refusal)].inc()
        # Who was refused, and why, is for whoever runs this service; the answer tells neither.
        _log.debug("refused, %s: %s", type(refusal).__name__, refusal)

    async def _start(self) -> None:
        """Run from now on, in this event loop unless another that runs has it. Whoever comes meanwhile waits too."""
        loop = asyncio.get_running_loop()
        with self._choosing:
            run = self._run
            if run is not None and run.loop is not loop and not run.loop.is_running():
                run.stop()  # as soon as its event loop goes on, if it ever does
                run = None
            if run is None:
                run = self._run = self._begun(loop)
                self._running = None
                self._runs = {run, *(earlier for earlier in self._runs if not earlier.has_ended)}
        await run.wait_until_started()
        if self._run is run and run.loop is loop:  # and not closed meanwhile
            self._running = run

    def _begun(self, loop: asyncio.AbstractEventLoop) -> "_Run":
        client = IssuerClient(self.issuer, transport=self._transport)
        live = asyncio.Event()
        follow = [self._keys.follow(client), self._feed.follow(client, on_live=live.set), self._report()]
        if self._service_token is not None:
            follow.append(self._service_token.follow(client))
        return _Run(loop, client, follow, until=self._known_for_the_first_time(live))

    async def _known_for_the_first_time(self, live: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_PATIENCE):
                await live.wait()
                if not len(self._keys):
                    await self._keys.refresh()

    async def _report(self) -> None:
        """Bring the metrics up to date once a second, for as long as this runs."""
        try:
            while True:
                self._count()
                self._metrics.revocations.set(len(self.revocations))
                for gauge, age in ((self._metrics.feed_age, self._feed.age), (self._metrics.jwks_age, self._keys.age)):
                    gauge.set(float("inf") if age is None else age)
                await asyncio.sleep(_REPORT_INTERVAL)
        finally:
            self._count()

    def _count(self) -> None:
        known, self._known = self._known, 0
        verified, self._verified = self._verified, 0
        self._metrics.verifications["valid"].inc(known + verified)
        self._metrics.cache_hits.inc(known)


def checked_audience(audience: object) -> tuple[str, ...]:
    """The name or names in `audience`. Raises ValueError."""
    names = (audience,) if isinstance(audience, str) else audience
    if not isinstance(names, Collection) or not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError("audience must name this service as the issuer does (AUTH_AUDIENCES there): one name or more")
    return tuple(names)


def checked_staleness(seconds: float | None) -> float | None:
    """`seconds`, if they may be a `max_staleness`. Raises ValueError."""
    if seconds is not None and not seconds > 0:
        raise ValueError("max_staleness must be a positive number of seconds, or None")
    return seconds


class _Watch:
    """Somebody who wants to know when one token is no longer good."""

    def __init__(self, loop: asyncio.AbstractEventLoop, expires_at: float, end: Callable[[], None]) -> None:
        self.loop = loop
        self.expires_at = expires_at
        self.releases = contextlib.ExitStack()
        """What stopping undoes."""
        self._end: Callable[[], None] | None = end

    def tell(self) -> None:
        """It is no longer good. From any thread, any number of times."""
        with contextlib.suppress(RuntimeError):  # the loop has been closed, and the connection with it
            self.loop.call_soon_threadsafe(self._told)

    def stop(self) -> None:
        self._end = None
        self.releases.close()

    def _told(self) -> None:
        end = self._end
        if end is not None:
            self.stop()
            end()


class _Run:
    """What runs while a verifier is open, in one event loop. It has started when `until` has ended."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        client: IssuerClient,
        follow: Collection[Coroutine[Any, Any, None]],
        *,
        until: Coroutine[Any, Any, None],
    ) -> None:
        self.loop = loop
        self._client = client
        self._tasks = {loop.create_task(each) for each in follow}
        self._starting = loop.create_task(until)
        self._stopping: asyncio.Task[None] | None = None

    @property
    def has_ended(self) -> bool:
        return self.loop.is_closed() or (self._stopping is not None and self._stopping.done())

    async def wait_until_started(self) -> None:
        """Return when it has started, or was stopped before; from another event loop with some patience only."""
        if not self._starting.done():
            with contextlib.suppress(KeysUnavailable):
                await self.answer(asyncio.wait({self._starting}))

    async def answer(self, question: Coroutine[Any, Any, _Answer]) -> _Answer:
        """What `question` answers in the event loop of this, whichever asks.

        Raises KeysUnavailable where that event loop does not get round to it.
        """
        if get_running_loop() is self.loop:
            return await question
        try:
            asked = asyncio.run_coroutine_threadsafe(question, self.loop)
        except RuntimeError:  # closed meanwhile
            question.close()
        else:
            answered = asyncio.wrap_future(asked)
            try:
                await asyncio.wait({answered}, timeout=_ELSEWHERE_PATIENCE)
            finally:
                asked.cancel()
            if answered.done() and not answered.cancelled():
                return answered.result()
        raise KeysUnavailable("the event loop that this verifier runs in, another one, does not answer")

    def stop(self) -> asyncio.Task[None] | None:
        """Let it end, in its own event loop. Answers what ends with it, where that is the running one.

        An event loop that is closed has ended it already.
        """
        if get_running_loop() is not self.loop:
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self.stop)
            return None
        if self._stopping is None:
            self._stopping = self.loop.create_task(self._stop())
        return self._stopping

    async def _stop(self) -> None:
        pending = {self._starting, *self._tasks}
        while pending:
            for task in pending:
                task.cancel()
            # Again after a while: a library on the way (asyncio.wait_for of Python 3.11) may swallow a cancellation.
            _, pending = await asyncio.wait(pending, timeout=_CANCEL_INTERVAL)
        await self._client.aclose()


def _result(refusal: VerifierError) -> Result:
    match refusal:
        case Unavailable():
            return "unavailable"
        case RevokedToken():
            return "revoked"
        case ExpiredToken():
            return "expired"
        case _:
            return "invalid"
