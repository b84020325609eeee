"""The revocation feed as a verifier follows it: what its events mean, how old what they said is, and coming back to it.

The set of what is revoked is `revocations.py`'s; the format of the stream is `event_stream.py`'s.
"""

import asyncio
import json
import logging
import math
import random
import re
import time
from collections.abc import Callable
from typing import Any, cast

from auth_service.verifier.clock import Clock
from auth_service.verifier.event_stream import UnreadableStream, events
from auth_service.verifier.issuer_client import IssuerClient, IssuerRefuses, IssuerUnreachable
from auth_service.verifier.metrics import metrics
from auth_service.verifier.revocations import KINDS, Entry, RevocationSet
from auth_service.verifier.service_token import ServiceTokenSource

_SILENCE = 1.5
"""Heartbeats without an event after which a connection is taken for dead: a revocation must arrive within two seconds
even where nobody says that the connection is gone."""

_GREETING_BOUNDS = (0.4, 3.0)
"""Seconds until the first event, connecting included: twice what it took last time, and longer after failures. So a
replica that takes connections and says nothing costs little, and an issuer that is only slow is waited for."""

_OLD = 5.0
"""Seconds of age, as a beat tells it, past which this replica may be cut off from what others know."""

_STAY_BOUNDS = (1.0, 30.0)
"""Seconds until such a replica is left, longer each time: all of them may be cut off, and are not to be stormed."""

_HEARTBEAT_BOUNDS = (0.1, 10.0)  # seconds
_RETRY_BOUNDS = (0.05, 1.0)  # seconds
_ENDLESS = 1e15  # seconds
_OF_THE_SET = frozenset({"hello", "revoke", "live"})
_ID = re.compile(r"[A-Za-z0-9_-]{22}", re.ASCII)

_log = logging.getLogger(__name__)


class UnreadableFeed(Exception):
    """What came is not the feed of our issuer. The text is for logs."""


class RevocationFeed:
    """Follows one issuer's feed and fills `revocations` from it. `token` is for a feed that is not public."""

    def __init__(
        self, issuer: str, revocations: RevocationSet, clock: Clock, *, token: ServiceTokenSource | None = None
    ) -> None:
        self._issuer = issuer
        self._token = token
        self._revocations = revocations
        self._clock = clock
        self._live = False
        self.known_at = -math.inf
        """When, by the monotonic clock, the issuer's journal was last known whole here: read by every request."""
        self._told_age = 0.0
        self._told_at = self._told_before = -math.inf
        """The same, as beats alone tell it: of this connection, and of those before it."""
        self._heartbeat = 1.0
        self._greeted_in = _GREETING_BOUNDS[1]
        self._old_replicas = 0
        self._leave_at = math.inf

    @property
    def age(self) -> float | None:
        """Seconds since the issuer's journal was last known whole here; None until a set has been complete once.

        It is the age that the last beat told, and the time since that beat. A replica that knows less than another
        told before takes nothing away: the set held here only grows.
        """
        return None if self.known_at == -math.inf else self._clock.monotonic() - self.known_at

    async def follow(self, issuer: IssuerClient, *, on_live: Callable[[], None]) -> None:
        """Stay connected for as long as this runs. `on_live` is called whenever a set has become complete."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await self._follow_one(issuer, on_live, patience=self._greeting_patience(failures))
            except Exception as exc:
                if not isinstance(exc, IssuerUnreachable | UnreadableStream | UnreadableFeed):
                    _log.exception("a fault in following the revocation feed")  # which must go on all the same
                _log.warning("the revocation feed was lost: %s; opening it again", exc)
            metrics().reconnects.inc()
            # One that ends at once, whatever it said, is one that failed: it must not be opened in a busy loop.
            failures = 0 if self._live and time.monotonic() - began > _RETRY_BOUNDS[1] else failures + 1
            delay = min(_RETRY_BOUNDS[1], _RETRY_BOUNDS[0] * 2 ** min(failures, 8))
            await asyncio.sleep(delay * random.uniform(0.2, 1))  # noqa: S311

    def receive(self, event: str, data: str) -> None:
        """Take in one event. Unknown ones, and unknown kinds of revocation, are left for newer verifiers.

        Raises UnreadableFeed.
        """
        if event == "hello":
            self._greet(_json(data))
        elif event == "revoke":
            self._revocations.add(_entries(_json(data)), now=self._clock.time())
        elif event == "live":
            self._live = True
            if self.known_at == -math.inf:
                self.known_at = self._clock.monotonic()  # until the beat that follows at once says it better
        elif event == "beat" and self._live:
            self._told_age = _number(_members(_json(data)).get("age"))
            self._told_at = self._clock.monotonic() - self._told_age
            self.known_at = max(self._told_at, self._told_before)

    def _leave_if_old(self) -> None:
        """Raises IssuerUnreachable once this replica has told of such ages for a while: another may know better."""
        now = time.monotonic()
        if self._told_age <= _OLD:
            self._old_replicas, self._leave_at = 0, math.inf
        elif self._leave_at == math.inf:
            shortest, longest = _STAY_BOUNDS
            stay = min(longest, shortest * float(2 ** min(self._old_replicas, 8)))
            self._leave_at = now + stay * random.uniform(0.5, 1)  # noqa: S311
        elif now >= self._leave_at:
            self._old_replicas += 1
            raise IssuerUnreachable("what it knows of revocations is old")

    def _greeting_patience(self, failures: int) -> float:
        shortest, longest = _GREETING_BOUNDS
        # At first as short again: behind a balancer one silent replica may be met several times.
        return min(longest, max(shortest, 2 * self._greeted_in) * float(2 ** min(max(failures - 2, 0), 8)))

    async def _follow_one(self, issuer: IssuerClient, on_live: Callable[[], None], *, patience: float) -> None:
        """One connection, until the issuer says `bye`."""
        self._live = False
        self._told_age, self._told_before = 0.0, max(self._told_before, self._told_at)
        self._leave_at = math.inf
        address = (await issuer.metadata()).revocation_feed
        if address is None:
            issuer.forget_metadata()
            raise IssuerUnreachable("its metadata names no revocation_feed_endpoint")
        access_token = None if self._token is None else await self._token.access_token(issuer)
        opened_at = time.monotonic()
        try:
            async with (
                asyncio.timeout(patience) as deadline,
                issuer.event_stream(address, access_token=access_token) as chunks,
            ):
                greeted = False
                async for event, data in events(chunks):
                    if event == "bye":
                        return
                    if not greeted and event != "hello":
                        raise UnreadableFeed("it does not begin with hello")
                    self.receive(event, data)
                    if not greeted:
                        greeted, self._greeted_in = True, time.monotonic() - opened_at
                    if event == "live":
                        on_live()
                    if self._live or event in _OF_THE_SET:  # beats alone never make a set whole
                        deadline.reschedule(asyncio.get_running_loop().time() + _SILENCE * self._heartbeat)
                    if event == "beat":
                        self._leave_if_old()
        except TimeoutError:
            raise IssuerUnreachable("no event for too long") from None
        except IssuerUnreachable as exc:
            if self._token is not None and isinstance(exc, IssuerRefuses):
                self._token.drop()
            if not self._live:
                issuer.forget_metadata()
            raise
        raise IssuerUnreachable("the stream ended")

    def _greet(self, hello: object) -> None:
        members = _members(hello)
        if members.get("iss") != self._issuer:
            raise UnreadableFeed("it is another issuer's")
        heartbeat = _number(members.get("heartbeat"))
        self._heartbeat = min(max(heartbeat, _HEARTBEAT_BOUNDS[0]), _HEARTBEAT_BOUNDS[1])


def _json(data: str) -> object:
    try:
        return cast(object, json.loads(data))
    except (ValueError, RecursionError):
        raise UnreadableFeed("an event is not JSON") from None


def _members(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UnreadableFeed("an event is not an object")
    return value


def _number(value: object) -> float:
    # NaN is not below infinity either, and an integer of any length can be compared.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _ENDLESS:
        raise UnreadableFeed("a number is missing or out of range")
    return float(value)


def _entries(value: object) -> list[Entry]:
    if not isinstance(value, list):
        raise UnreadableFeed("revocations are not a list")
    entries: list[Entry] = []
    for entry in value:
        match entry:
            case [str(kind), *_] if kind not in KINDS:
                pass  # for newer verifiers, whatever it looks like
            case [str(kind), str(identifier), expires_at, *_] if _ID.fullmatch(identifier):
                entries.append((cast(Any, kind), identifier, _number(expires_at)))
            case _:
                raise UnreadableFeed("a revocation is not readable")
    return entries
