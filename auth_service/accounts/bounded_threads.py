"""Threads for work that would hold up everybody else, and a bounded number of places for those who wait for them."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from prometheus_client import Counter

from auth_service.errors import Unavailable

_T = TypeVar("_T")


class BoundedThreads:
    """`count` threads, with `places` for all the work that waits or is being done. `refused` counts the rest."""

    def __init__(self, name: str, *, count: int, places: int, refused: Counter) -> None:
        self._name = name
        self._threads = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._free = places
        self._refused = refused

    async def run(self, work: Callable[[], _T]) -> _T:
        """What `work` returns. Raises Unavailable at once when there is no place."""
        if self._free == 0:
            self._refused.inc()
            raise Unavailable(f"the {self._name} queue is full")
        self._free -= 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._free += 1

    def close(self) -> None:
        """Give up what waits."""
        self._threads.shutdown(wait=False, cancel_futures=True)
