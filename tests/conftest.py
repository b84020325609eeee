"""Fixtures: the stores of the run, and a service of its own for each test."""

import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import pytest

from auth_service.settings import Settings
from tests.support.service import Service, Start, running_service
from tests.support.stores import TOPOLOGY, Stores, started_stores


def pytest_configure() -> None:
    """Let Ctrl-C through to the processes that the tests start: a shell's background job inherits it as ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def stores() -> Iterator[Stores]:
    """PostgreSQL and Redis for the whole run, on ports and in a folder of their own."""
    with started_stores(topology=TOPOLOGY) as stores:
        print(f"\n{stores.versions}")  # noqa: T201
        yield stores


@pytest.fixture(scope="module")
def fragile() -> Iterator[Stores]:
    """Stores of one file of tests that may be stopped: whoever stops one starts it again."""
    with started_stores() as stores:
        yield stores


@pytest.fixture
def fragile_settings(fragile: Stores) -> Iterator[Callable[..., Settings]]:
    """Makes settings for a database and a Redis that are empty, and may be stopped."""
    fragile.flush_redis()
    url = fragile.new_database()
    yield lambda **changes: fragile.settings(**{"database_url": url, **changes})
    fragile.drop(url)


@pytest.fixture(scope="session")
def database(stores: Stores) -> str:
    """The URL of the database that tests share, one after the other."""
    return stores.new_database()


@pytest.fixture
def settings(stores: Stores, database: str) -> Callable[..., Settings]:
    """Makes settings for a database without users and a Redis without keys."""
    stores.flush_redis()
    stores.empty(database)
    return lambda **changes: stores.settings(**{"database_url": database, **changes})


@pytest.fixture
async def service(settings: Callable[..., Settings]) -> AsyncIterator[Service]:
    """The service with its default settings, in this process."""
    async with running_service(settings()) as running:
        yield running


@pytest.fixture
async def start(settings: Callable[..., Settings]) -> AsyncIterator[Start]:
    """Starts a service with changed settings; it stops when the test ends."""
    async with AsyncExitStack() as stack:

        async def start_with(**changes: Any) -> Service:
            opened: AbstractAsyncContextManager[Service] = running_service(settings(**changes))
            return await stack.enter_async_context(opened)

        yield start_with
