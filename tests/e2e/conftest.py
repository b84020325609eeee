"""Fixtures: the services for the whole run, a browser, and browser contexts that write down all they ask for."""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.e2e.page import Context
from tests.support.gateway import Services, serving
from tests.support.stores import Stores

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"

SHORT_LIFE = 3
"""Seconds that an access token of `short_lived` lives."""

OpenContext = Callable[..., Awaitable[Context]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    for item in ours:
        item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)  # the browser's: one for all of them
        if not Path(CHROMIUM).exists():
            item.add_marker(pytest.mark.skip(reason=f"NO BROWSER TEST RUNS: there is no {CHROMIUM} (apt: chromium)"))


@pytest.fixture(scope="session")
def services(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """The issuer and the gateway, with their default settings."""
    database = stores.new_database()
    folder = tmp_path_factory.mktemp("services")
    with serving(lambda **changes: stores.settings(database_url=database, **changes), folder) as running:
        yield running


@pytest.fixture(scope="session")
def short_lived(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """The same with access tokens of a few seconds."""
    database = stores.new_database()
    folder = tmp_path_factory.mktemp("short-lived")
    with serving(
        lambda **changes: stores.settings(database_url=database, access_token_ttl=SHORT_LIFE, **changes), folder
    ) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def open_context(browser: Browser, services: Services) -> AsyncIterator[OpenContext]:
    """Opens a browser context: cookies and storage of its own. In the end, no request of any left the two hosts."""
    opened: list[Context] = []

    async def open_with(running: Services = services, **options: object) -> Context:
        context = Context(running, await browser.new_context(**options))  # type: ignore[arg-type]
        opened.append(context)
        return context

    yield open_with
    for context in opened:
        await context.browser_context.close()
        assert context.strays == []
