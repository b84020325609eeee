"""The Redis stream: how the other processes hear of a revocation within milliseconds. Never the only copy of one.

One key, `auth:revocations`. Whatever Redis loses, rolls back or never gets, the journal has.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, cast

import structlog

from auth_service.errors import Unavailable
from auth_service.revocation.live_set import BATCH
from auth_service.stores.redis import RedisClient, redis_failures
from auth_service.verifier.revocations import KINDS, Entry

BLOCK: Final = 0.5
"""Seconds that a read waits for something new."""

_KEY = "auth:revocations"
_LIFE = 60_000  # milliseconds
_COUNT = 100  # messages of one read, each with a batch at most: what Redis is asked for at once is held in memory
_START = b"0"
_ID = re.compile(r"[A-Za-z0-9_-]{22}", re.ASCII)
_SCRIPT = resources.files("auth_service.revocation").joinpath("push.lua").read_text("utf-8")

_log = structlog.get_logger(__name__)


class StreamWriter:
    """Appends to the stream, on the client that all of the service uses."""

    def __init__(self, redis: RedisClient) -> None:
        self._script = redis.register_script(_SCRIPT)

    async def push(self, entries: Sequence[Entry]) -> None:
        """Raises Unavailable when Redis is away."""
        messages = [json.dumps(entries[start : start + BATCH]) for start in range(0, len(entries), BATCH)]
        with redis_failures():
            await self._script(keys=[_KEY], args=[_LIFE, *messages])


@dataclass(frozen=True, slots=True)
class Read:
    """What one read found. `complete`: there was nothing more."""

    _messages: list[tuple[bytes, Any]]
    complete: bool

    def batches(self) -> Iterator[list[Entry]]:
        """The entries, message by message: reading very many at once would hold up the event loop."""
        for _, fields in self._messages:
            yield _entries(fields)


class StreamReader:
    """Reads the stream from its beginning, and on from there. After a failure it begins anew: what is known does not
    matter, and a Redis that was replaced counts differently.

    `redis` is a client of its own with a patience longer than `BLOCK`.
    """

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._last = _START

    async def read(self) -> Read:
        """What is new, waiting for it for `BLOCK`. Raises Unavailable."""
        try:
            with redis_failures():
                answer = await self._redis.execute_command(
                    "XREAD", "COUNT", _COUNT, "BLOCK", int(BLOCK * 1000), "STREAMS", _KEY, self._last
                )
        except Unavailable:
            self._last = _START
            raise
        messages = _messages(answer)
        if messages:
            self._last = messages[-1][0]
        return Read(messages, len(messages) < _COUNT)

    async def is_on_master(self) -> bool:
        """Whether the node that is read from says that it is the master. One that does not say is not."""
        try:
            with redis_failures():
                master = await self._redis.master_of(_KEY)
                role = await master.role()
        except Unavailable:
            return False
        return bool(role and role[0] in (b"master", "master"))

    async def close(self) -> None:
        await self._redis.aclose()


def _messages(answer: Any) -> list[tuple[bytes, Any]]:
    """The messages of an answer to XREAD, whichever protocol it was given in."""
    if not answer:
        return []
    [messages] = answer.values() if isinstance(answer, dict) else [found for _, found in answer]
    return cast(list[tuple[bytes, Any]], messages)


def _entries(fields: Any) -> list[Entry]:
    """The entries of one message; none where somebody else wrote it."""
    try:
        entries = json.loads(dict(fields)[b"entries"])
        return [_entry(*entry) for entry in entries]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        _log.warning("revocation_message_unreadable")
        return []


def _entry(kind: object, identifier: object, expires_at: object) -> Entry:
    """Raises ValueError."""
    if (
        kind not in KINDS
        or not isinstance(identifier, str)
        or not _ID.fullmatch(identifier)
        or isinstance(expires_at, bool)
        or not isinstance(expires_at, int | float)
        or not math.isfinite(expires_at)
    ):
        raise ValueError
    return cast(Entry, (kind, identifier, expires_at))
