"""Many tabs of one browser: one refresh for all, and one truth about who is signed in."""

import asyncio
import time

from tests.e2e.conftest import OpenContext
from tests.e2e.page import is_live, logged, shows_signed_in, shows_signed_out, sign_in, with_client
from tests.support.gateway import Services

_TABS = 10


async def test_a_reload_stays_signed_in(services: Services, open_context: OpenContext) -> None:
    user = services.register()
    context = await open_context()
    page = await context.tab()
    await shows_signed_out(page)
    assert context.refreshes == 0, "a first visit has nothing to refresh with"
    await sign_in(page, user)
    session = await page.locator("#session-id").text_content()
    await page.reload()
    await shows_signed_in(page, user)
    assert await page.locator("#session-id").text_content() == session
    assert context.refreshes == 1


async def test_ten_tabs_that_refresh_at_once_share_few_refreshes_and_stay_signed_in(
    services: Services, open_context: OpenContext
) -> None:
    user = services.register()
    context = await open_context()
    first = await context.signed_in(user)
    pages = [first, *[await context.tab() for _ in range(_TABS - 1)]]
    await asyncio.gather(*[shows_signed_in(page, user) for page in pages])
    assert context.refreshes == 0, "a new tab is told by those there are"
    at_once = """await new Promise((resolve) => setTimeout(resolve, argument - Date.now()));
        return client.refresh();"""
    moment = (time.time() + 2) * 1000
    assert await asyncio.gather(*[with_client(page, at_once, moment) for page in pages]) == [True] * _TABS
    together = context.refreshes
    await asyncio.gather(*[page.reload() for page in pages])
    await asyncio.gather(*[shows_signed_in(page, user) for page in pages])
    print(f"\nrefreshes: {together} of {_TABS} tabs at once, {context.refreshes - together} of as many reloads")  # noqa: T201
    assert 1 <= together <= 3
    assert context.refreshes - together <= 3
    tokens = await asyncio.gather(*[with_client(page, "return client.accessToken()") for page in pages])
    assert len(set(tokens)) == 1


async def test_ten_tabs_without_any_agreement_between_them_stay_signed_in(
    services: Services, open_context: OpenContext
) -> None:
    user = services.register()
    context = await open_context()
    page = await context.signed_in(user)
    pages = [page, *[await context.tab("/healthz") for _ in range(_TABS - 1)]]
    refresh = """async (issuer) => {
        const init = { method: "POST", credentials: "include" };
        return (await fetch(`${issuer}/user/refresh-token`, init)).status;
    }"""
    for _ in range(2):
        statuses = await asyncio.gather(*[tab.evaluate(refresh, services.issuer) for tab in pages])
        assert statuses == [200] * _TABS
    await page.reload()
    await shows_signed_in(page, user)


async def test_signing_out_in_one_tab_signs_out_the_others(services: Services, open_context: OpenContext) -> None:
    context = await open_context()
    first = await context.signed_in()
    others = [await context.tab() for _ in range(3)]
    await asyncio.gather(*[is_live(page) for page in (first, *others)])
    await first.get_by_role("button", name="Sign out", exact=True).first.click()
    await asyncio.gather(*[shows_signed_out(page) for page in (first, *others)])
    for page in others:
        await logged(page, "Signed out. (Another tab told.)")
    assert context.refreshes == 0, "no tab had to be told by a refusal"
    await first.reload()
    await shows_signed_out(first)
    cookies = await context.browser_context.cookies(services.issuer)
    assert cookies == []


async def test_another_user_in_one_tab_is_followed_by_the_others(services: Services, open_context: OpenContext) -> None:
    one, other = services.register(), services.register()
    context = await open_context()
    first = await context.signed_in(one)
    second = await context.tab()
    await shows_signed_in(second, one)
    await with_client(
        first,
        "await client.login(argument)",
        {"email": other.email, "password": "correct horse battery staple"},
    )
    await shows_signed_in(first, other)
    await shows_signed_in(second, other)
    answer = await with_client(second, "return (await client.fetch('/api/me')).json()")
    assert answer["user"]["username"] == other.username
    assert [session["current"] for session in await with_client(second, "return client.sessions()")].count(True) == 1


async def test_a_session_revoked_elsewhere_is_gone_within_a_second(
    services: Services, open_context: OpenContext
) -> None:
    user = services.register()
    context = await open_context()
    pages = [await context.signed_in(user), await context.tab()]
    await asyncio.gather(*[is_live(page) for page in pages])
    elsewhere = await open_context()
    there = await elsewhere.signed_in(user)
    mine = await pages[0].locator("#session-id").text_content()
    gone = asyncio.gather(*[shows_signed_out(page, seconds=3) for page in pages])
    assert await with_client(there, "return client.endSession(argument)", mine) is None
    answered = time.monotonic()
    await gone
    took = time.monotonic() - answered
    print(f"\nsigned out {took * 1000:.0f} ms after the revocation was answered")  # noqa: T201
    assert took < 1
    assert context.refreshes == 1, "both tabs are sure after one refresh"
    for page in pages:
        await logged(page, "This session was ended elsewhere.")
    await shows_signed_in(there, user)


async def test_signing_out_everywhere_ends_the_session_in_another_browser(
    services: Services, open_context: OpenContext
) -> None:
    user = services.register()
    here, there = await open_context(), await open_context()
    first, second = await here.signed_in(user), await there.signed_in(user)
    await is_live(second)
    await first.get_by_role("button", name="Sign out everywhere").click()
    await shows_signed_out(first)
    await shows_signed_out(second)
    await logged(first, "Signed out everywhere.")
