"""Rotation: what one use of a refresh token does to its session's generation. One atomic step in Redis.

`current` is the higher of what Redis stores and the checkpoint from PostgreSQL, so a Redis that was flushed, rolled
back or failed over needs no special case. The presented generation against it:

    presented      within the window after the last rotation     later
    = current      held: the same generation again               rotated: current + 1
    = current - 1  replayed: the current generation              reused: theft, the session ends
    < current - 1  reused                                        reused
    > current      adopted: Redis has lost writes                adopted

Whether a use is within the window is decided by when its request arrived: how long it then waited for PostgreSQL, whose
time dates a rotation, is not its caller's fault.

A rotation also waits, holding, until the last replayed cookie has had a fifth of the window to arrive: one that came
after its successor would overwrite it in the jar, and what is left in the jar must work whenever it is used next.

A rotation of which Redis could tell nobody (it went away before it had answered) is noted in PostgreSQL. Its parent is
not reuse then, however late it comes back: it is rotated again, to the same generation. That is over as soon as
somebody was given that generation: its checkpoint says so, a second later.

What follows from an outcome is decided in `refresh.py`.
"""

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from importlib import resources
from uuid import UUID
from weakref import WeakKeyDictionary

from redis.asyncio import Redis

from auth_service.errors import Unavailable
from auth_service.metrics import STORE_SECONDS
from auth_service.sessions.session import Transport
from auth_service.stores.redis import ANSWER_TIMEOUT, RedisClient, redis_failures

PATIENCE = 5.0
"""Seconds after which a refresh under way is dropped, wherever it waited."""

_UNDER_WAY = 5
"""The fraction of the window, as its divisor, that one answer may take to arrive."""

_STORED = re.compile(rb"([0-9]{1,10}) [0-9]+ ?[0-9]*$")
_SCRIPT = resources.files("auth_service.sessions").joinpath("rotate.lua").read_text("utf-8")


class Outcome(StrEnum):
    ROTATED = "rotated"
    HELD = "held"
    REPLAYED = "replayed"
    ADOPTED = "adopted"
    REUSED = "reused"


@dataclass(frozen=True, slots=True)
class Generation:
    """How often a session has rotated, and when it last did; None: never."""

    number: int
    rotated_at: datetime | None


@dataclass(frozen=True, slots=True)
class Rotation:
    """What came of one use: the outcome, and the generation that is current after it."""

    outcome: Outcome
    current: Generation


class RotationStore:
    """The live generations, one Redis key a session. Every method raises Unavailable when Redis is away."""

    def __init__(
        self,
        redis: RedisClient,
        *,
        window: timedelta,
        idle_life: timedelta,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._script = redis.register_script(_SCRIPT)
        self._window = _milliseconds(window)
        self._life = _milliseconds(idle_life + window)
        self._monotonic = monotonic
        # Each node's clock minus ours, in milliseconds, as last seen in an answer. Only ever used to recognise a
        # command that came late; which is sent once more where this was not known, or wrong by less than an answer can
        # be slow.
        self._ahead: WeakKeyDictionary[Redis, float] = WeakKeyDictionary()
        # When such a clock was last seen to have leapt. None does, but ours stands still with the machine, and the time
        # that every refresh under way has read is then as old as that was long.
        self._leapt = -math.inf

    def started(self) -> float:
        """The moment at which a refresh begins, to be handed to `rotate`."""
        return self._monotonic()

    async def rotate(
        self,
        session_id: UUID,
        presented: int,
        *,
        checkpoint: Generation,
        now: datetime,
        arrived: datetime,
        unanswered: bool,
        started: float,
        transport: Transport,
    ) -> Rotation:
        """Use generation `presented` of a session at `now`, in a request that arrived at `arrived`.

        `unanswered`: an earlier use of it got no answer, and nobody is known to have been given the one after it.
        Raises Unavailable, with nothing spent, when more than `PATIENCE` has passed since `started`.
        """
        under_way = self._window // _UNDER_WAY if transport == "cookie" else 0
        for _attempt in range(2):
            with redis_failures():
                node = await self._redis.master_of(_key(session_id))
            ahead = self._ahead.get(node)
            moment = self._monotonic()
            if moment - started > PATIENCE or started < self._leapt:
                raise Unavailable("a refresh waited too long")
            # Not after we have given it up either: who is told that nothing was changed must find nothing changed.
            not_after = min(started + PATIENCE, moment + ANSWER_TIMEOUT) * 1000 + (ahead or 0)
            with redis_failures():
                outcome, number, rotated_at, node_now = await self._script(
                    keys=[_key(session_id)],
                    args=[
                        presented,
                        checkpoint.number,
                        _epoch(checkpoint.rotated_at),
                        _epoch(now),
                        self._window,
                        self._life,
                        int(not_after),
                        under_way,
                        _epoch(arrived),
                        int(unanswered),
                    ],
                )
            answered = self._monotonic()
            STORE_SECONDS["redis"].observe(answered - moment)
            self._ahead[node] = node_now - answered * 1000
            if outcome != b"late":
                return Rotation(Outcome(outcome.decode()), Generation(number, _moment(rotated_at)))
            if ahead is not None and self._ahead[node] - ahead > ANSWER_TIMEOUT * 1000:
                self._leapt = answered
        raise Unavailable("a refresh came late to Redis")

    async def current(self, session_id: UUID, *, checkpoint: Generation) -> int:
        """The number of the live generation, without using any."""
        with redis_failures():
            stored = await self._redis.get(_key(session_id))
        found = _STORED.match(stored) if isinstance(stored, bytes) else None
        return max(int(found[1]) if found else 0, checkpoint.number)

    async def forget(self, session_ids: Sequence[UUID]) -> None:
        """Drop the keys of ended sessions."""
        with redis_failures():
            await self._redis.execute_each([("DEL", _key(session_id)) for session_id in session_ids])


def _key(session_id: UUID) -> str:
    return f"auth:session:{session_id}"


def _milliseconds(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)


def _epoch(moment: datetime | None) -> int:
    """Milliseconds since the epoch; 0 for never."""
    return 0 if moment is None else (moment - _EPOCH) // timedelta(milliseconds=1)


def _moment(epoch: int) -> datetime | None:
    return _EPOCH + timedelta(milliseconds=epoch) if epoch else None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
