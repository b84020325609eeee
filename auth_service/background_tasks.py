"""The end of background tasks. Each belongs to whoever started it, who has it end here."""

import asyncio
from collections.abc import Iterable
from typing import Any

_AGAIN = 0.25  # seconds


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel `tasks`, and return once all have ended."""
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        # Once is not always enough: Python 3.11's `asyncio.wait_for`, which redis-py sends with, may swallow it.
        _, running = await asyncio.wait(running, timeout=_AGAIN)
