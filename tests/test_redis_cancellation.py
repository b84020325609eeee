"""A command to Redis that is cancelled half-way: nobody is ever given the answer to another one's question."""

import asyncio
import os
import random
from uuid import uuid4

from auth_service.errors import Unavailable
from auth_service.sessions.rotation import Generation, Outcome
from tests.support.service import Service

_COUNT = 5_000 * int(os.environ.get("TEST_CAMPAIGN", "1"))
_AT_ONCE = 100


async def test_half_of_all_refreshes_cancelled_cross_no_answers(service: Service) -> None:
    """CVE-2023-28858: the next to use the connection read what was left of the last."""
    rng = random.Random(1)  # noqa: S311
    rotations, now = service.app.parts.rotations, await service.app.parts.database.now()

    async def rotate(generation: int) -> int:
        rotation = await rotations.rotate(
            uuid4(),
            generation,
            checkpoint=Generation(generation, None),
            now=now,
            arrived=now,
            unanswered=False,
            started=rotations.started(),
            transport="body",
        )
        assert rotation.outcome is Outcome.ROTATED
        return rotation.current.number

    loop = asyncio.get_running_loop()
    cancelled = answered = unavailable = 0
    spread = 0.01
    for first in range(1, _COUNT, _AT_ONCE):
        began = loop.time()
        tasks = {asyncio.create_task(rotate(generation)): generation for generation in range(first, first + _AT_ONCE)}
        for task in rng.sample(list(tasks), _AT_ONCE // 2):
            # Each is caught somewhere else on its way; most of them before they are through.
            loop.call_later(spread * rng.random(), task.cancel)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        spread = loop.time() - began
        for task, result in zip(tasks, results, strict=True):
            if isinstance(result, asyncio.CancelledError):
                cancelled += 1
            elif isinstance(result, Unavailable):
                unavailable += 1
            else:
                assert result == tasks[task] + 1, "the answer to somebody else's question"
                answered += 1
    assert cancelled > _COUNT // 8
    assert answered > _COUNT // 4
    assert unavailable < _COUNT // 10  # each waited a second for a connection: the machine was busy
