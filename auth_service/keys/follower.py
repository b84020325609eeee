"""Following the stored keys: each process reads them again and again, so that all hold the same ring."""

import asyncio
import random
from datetime import timedelta

import structlog

from auth_service.background_tasks import end
from auth_service.errors import Unavailable
from auth_service.keys.key_ring import KeyRing
from auth_service.keys.schedule import STATES
from auth_service.keys.store import SigningKeyStore, StoredKeys
from auth_service.metrics import SIGNING_KEY_AGE, SIGNING_KEY_ENDS, SIGNING_KEYS, SIGNING_KEYS_UNREADABLE
from auth_service.stores.database import Database

_log = structlog.get_logger(__name__)


class KeyFollower:
    """Keeps `ring` as PostgreSQL has it, at most `interval` behind: a revoked key must be known within two seconds,
    so it is one. While PostgreSQL is away the ring stays as it is; and while it is a server that takes no writes, which
    may lag behind the one that does.

    `database` has a connection for it that requests cannot use up; whoever made it opens and closes it.
    """

    def __init__(self, store: SigningKeyStore, ring: KeyRing, *, database: Database) -> None:
        self.interval = timedelta(seconds=1)
        self._database = database
        self._store = store
        self._ring = ring
        self._task: asyncio.Task[None] | None = None
        self.problem: str | None = None
        """Why the ring may not be as PostgreSQL has it; None where it is."""
        self._signing: str | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            await end({self._task})

    def hold(self, stored: StoredKeys) -> None:
        """Hold what was read."""
        self._ring.replace(stored.keys, now=stored.now)
        states = [life.state(stored.now) for life in stored.lives]
        for state in STATES:
            SIGNING_KEYS.labels(state=state).set(states.count(state))
        SIGNING_KEYS_UNREADABLE.set(len(stored.unreadable))
        for life in stored.lives:
            if life.state(stored.now) == "signing":
                SIGNING_KEY_AGE.set((stored.now - life.signs_from).total_seconds())
                SIGNING_KEY_ENDS.set(life.ends.timestamp())
                if life.kid != self._signing:
                    self._signing = life.kid
                    _log.info("signing_key", kid=life.kid)

    async def _run(self) -> None:
        readings = self._ring.readings
        while True:
            # Replicas that were started together do not stay in step.
            await readings.pause(self.interval.total_seconds() * random.uniform(0.5, 1))  # noqa: S311
            try:
                async with readings.one():
                    stored = await self._store.load(self._database)
                    if stored.read_only:
                        raise await self._database.takes_no_writes()
                    self.hold(stored)
            except Unavailable as exc:
                self._report(exc.reason)
            except Exception as exc:
                # Whatever it was: a process without this task would go on with keys that are not in use any more.
                self._report(type(exc).__name__, unexpected=True)
            else:
                self._report(next((str(problem) for problem in stored.unreadable.values()), None))

    def _report(self, problem: str | None, *, unexpected: bool = False) -> None:
        """Log the first of a row of failures, and its end."""
        if problem != self.problem:
            self.problem = problem
            if problem is None:
                _log.info("keys_followed_again")
            else:
                _log.error("keys_not_followed", reason=problem, exc_info=unexpected)
