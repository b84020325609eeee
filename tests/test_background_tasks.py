"""The end of background tasks: of a task that swallows a cancellation too, as clients of stores sometimes do."""

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from cryptography.fernet import Fernet

from auth_service.background_tasks import end
from auth_service.errors import Unavailable
from auth_service.keys.encryption import KeyCipher
from auth_service.keys.follower import KeyFollower
from auth_service.keys.key_ring import KeyRing
from auth_service.keys.store import SigningKeyStore
from auth_service.sessions.checkpoint import CheckpointWriter
from auth_service.sessions.rotation import Generation
from auth_service.stores.clock import Clock
from auth_service.stores.database import Database, Row


async def _swallows_one(begun: asyncio.Event) -> None:
    begun.set()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(60)
    await asyncio.sleep(60)


async def test_a_task_that_swallows_a_cancellation_is_ended_all_the_same() -> None:
    begun = asyncio.Event()
    task, other = asyncio.create_task(_swallows_one(begun)), asyncio.create_task(asyncio.sleep(60))
    await begun.wait()
    await asyncio.wait_for(end([task, other]), 5)
    assert task.cancelled()
    assert other.cancelled()


async def test_ending_no_task_or_one_that_has_ended_is_nothing() -> None:
    await asyncio.wait_for(end([]), 5)
    ended = asyncio.create_task(asyncio.sleep(0))
    await ended
    await asyncio.wait_for(end([ended]), 5)
    assert not ended.cancelled()


class _HeedlessDatabase(Database):
    """Its client hangs in the first statement, and takes being cancelled in it for a failure of the server."""

    def __init__(self) -> None:
        super().__init__("postgresql://127.0.0.1/none", Clock())
        self.asked = asyncio.Event()

    async def rows(self, sql: str, *values: object) -> Sequence[Row]:
        if not self.asked.is_set():
            self.asked.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
        raise Unavailable("cancelled")


async def _returns(stopping: Coroutine[Any, Any, None]) -> None:
    # Not with a timeout around it: what swallows a cancellation may swallow that one's.
    done, _ = await asyncio.wait({asyncio.create_task(stopping)}, timeout=5)
    assert done


async def test_the_key_follower_stops_though_its_client_swallows_the_cancellation() -> None:
    database = _HeedlessDatabase()
    store = SigningKeyStore(database, KeyCipher([Fernet.generate_key().decode()]))
    follower = KeyFollower(store, KeyRing(), database=database)
    follower.start()
    await asyncio.wait_for(database.asked.wait(), 5)
    await _returns(follower.stop())


async def test_the_checkpoint_writer_stops_though_its_client_swallows_the_cancellation() -> None:
    database = _HeedlessDatabase()
    checkpoints = CheckpointWriter(database)
    checkpoints.note(uuid4(), Generation(2, datetime.now(UTC)), ip=None)
    checkpoints.start()
    await asyncio.wait_for(database.asked.wait(), 5)
    await _returns(checkpoints.stop())
