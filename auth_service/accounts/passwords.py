"""Passwords: hashing and checking them, in bounded threads. Whether a new one is good enough is `password_rules.py`'s.

The only file that imports passlib (from `libpass`, its maintained release).
"""

import os
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from passlib.context import CryptContext
from passlib.exc import UnknownHashError

from auth_service.accounts.bounded_threads import BoundedThreads
from auth_service.metrics import HASH_PLACES, HASH_QUEUE, HASH_REFUSED, HASH_SECONDS

MAX_BYTES = 1024
"""UTF-8 bytes of a password; longer ones are refused before they are hashed."""

_MOST_THREADS = 8  # 20 to 30 MiB each: a container is seldom given memory for every core of its node
_QUEUE_PER_THREAD = 64  # about 1.3 s of waiting at 20 ms a hash

# OWASP's least parameters for argon2id. The others are for accounts that came from elsewhere: "deprecated" means that
# each is hashed anew at its first login.
_CONTEXT = CryptContext(
    schemes=["argon2", "pbkdf2_sha256", "django_pbkdf2_sha256"],
    deprecated="auto",
    argon2__type="ID",
    argon2__memory_cost=19456,
    argon2__time_cost=2,
    argon2__parallelism=1,
)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class PasswordCheck:
    """Whether the password was right, and whether the stored hash should give way to a better one."""

    right: bool
    outdated: bool = False


class PasswordHasher:
    """Hashes in one thread a core, eight at most (the GIL is released), and refuses work beyond a short queue."""

    def __init__(self, *, threads: int | None = None) -> None:
        count = threads or min(_cores(), _MOST_THREADS)
        places = count * _QUEUE_PER_THREAD
        self._threads = BoundedThreads("password", count=count, places=places, refused=HASH_REFUSED)
        HASH_PLACES.set(places)
        self._dummy = _CONTEXT.hash("the password of nobody")

    async def hash(self, password: str) -> str:
        """A new argon2id hash. Raises Unavailable when the queue is full."""
        return await self._timed(lambda: _CONTEXT.hash(normalise(password)))

    async def check(self, password: str, stored_hash: str | None) -> PasswordCheck:
        """Check against a stored hash, or against one of nobody's: it takes as long. Raises Unavailable."""
        return await self._timed(lambda: _check(password, stored_hash or self._dummy, known=stored_hash is not None))

    def close(self) -> None:
        self._threads.close()

    async def _timed(self, work: Callable[[], _T]) -> _T:
        began = time.perf_counter()
        HASH_QUEUE.inc()
        try:
            made = await self._threads.run(work)
        finally:
            HASH_QUEUE.dec()
        HASH_SECONDS.observe(time.perf_counter() - began)
        return made


def _cores() -> int:
    """The cores that this process may use, which are fewer than the machine's in a pinned container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def normalise(password: str) -> str:
    """NFKC, for good: the same password typed on two systems is the same password."""
    return unicodedata.normalize("NFKC", password)


def _check(password: str, stored_hash: str, *, known: bool) -> PasswordCheck:
    normalised = normalise(password)
    right = _matches(normalised, stored_hash)
    if not right and password != normalised:
        # A hash that came from elsewhere was made of the password as it was typed.
        right = _matches(password, stored_hash)
    if not right or not known:
        return PasswordCheck(right=False)
    return PasswordCheck(right=True, outdated=_CONTEXT.needs_update(stored_hash))


def _matches(password: str, stored_hash: str) -> bool:
    try:
        return bool(_CONTEXT.verify(password, stored_hash))
    except (UnknownHashError, ValueError):
        return False
