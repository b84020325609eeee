"""The access token in the page: refreshed in time, once when refused, and never lost to an outage or a race."""

import asyncio
from typing import Any

import httpx2
import pytest
from playwright.async_api import Route

from tests.e2e.conftest import SHORT_LIFE, OpenContext
from tests.e2e.page import is_live, logged, shows_signed_in, shows_signed_out, with_client
from tests.support.gateway import Services, until
from tests.support.service import PASSWORD

_REFRESH = "**/user/refresh-token"


async def test_a_page_in_use_refreshes_ahead_and_sees_no_refusal(
    short_lived: Services, open_context: OpenContext
) -> None:
    context = await open_context(short_lived)
    page = await context.signed_in()
    statuses = await with_client(
        page,
        """const statuses = [], until = Date.now() + argument;
        while (Date.now() < until) {
            statuses.push((await client.fetch("/api/me")).status);
            await new Promise((resolve) => setTimeout(resolve, 100));
        }
        return statuses;""",
        SHORT_LIFE * 2.5 * 1000,
    )
    assert set(statuses) == {200}
    assert 2 <= context.refreshes <= 3
    assert context.complaints == []


async def test_a_token_that_expires_in_mid_use_is_refreshed_exactly_once(
    short_lived: Services, open_context: OpenContext
) -> None:
    user = short_lived.register()
    context = await open_context(short_lived)
    # Without the live connection of the page, which would notice first.
    page = await context.tab("/healthz")
    await page.clock.install()
    token = await page.evaluate(
        """async ([issuer, credentials]) => {
            const { AuthClient } = await import("/static/auth-client.js");
            globalThis.client = new AuthClient({ issuer });
            await client.login(credentials);
            return client.accessToken();
        }""",
        [short_lived.issuer, {"email": user.email, "password": PASSWORD}],
    )
    # A tab whose timers and clock stand still, as in a computer that sleeps: it takes its token for fresh.
    await page.clock.pause_at(await page.evaluate("Date.now() / 1000 + 0.1"))
    assert context.refreshes == 0
    address, bearer = f"{short_lived.gateway}/api/me", {"Authorization": f"Bearer {token}"}

    def refused() -> bool:
        return httpx2.get(address, headers=bearer).status_code == 401

    await asyncio.to_thread(until, refused, seconds=SHORT_LIFE + 15)
    calls = """async () => {
        const answers = await Promise.all(Array.from({ length: 10 }, () => client.fetch("/api/me")));
        return answers.map((answer) => answer.status);
    }"""
    before = len(context.requests)
    assert await page.evaluate(calls) == [200] * 10
    asked = [request for request in context.requests[before:] if request.url.endswith("/api/me")]
    assert len(asked) == 20, "each was refused once and asked again once"
    assert context.refreshes == 1


@pytest.mark.parametrize(("status", "requests"), [(503, 3), (None, 3), (500, 1), (429, 1), (403, 1)])
async def test_an_issuer_that_cannot_answer_signs_nobody_out(
    services: Services, open_context: OpenContext, status: int | None, requests: int
) -> None:
    user = services.register()
    context = await open_context()
    page = await context.signed_in(user)

    async def fail(route: Route) -> None:
        if status is not None:
            headers = {
                "Access-Control-Allow-Origin": services.gateway,
                "Access-Control-Allow-Credentials": "true",
                "Access-Control-Expose-Headers": "Retry-After",
                "Retry-After": "0",
            }
            await route.fulfill(status=status, headers=headers, json={"code": "unavailable"})
        else:
            await route.abort("connectionrefused")

    await page.route(_REFRESH, fail)
    name = await with_client(page, "return client.refresh().catch((error) => error.name)")
    assert name == "Unreachable"
    assert context.refreshes == requests, "what may pass is tried again, and not for ever"
    await logged(page, "You stay signed in")
    await shows_signed_in(page, user)
    assert await with_client(page, "return (await client.fetch('/api/me')).status") == 200
    await page.unroute(_REFRESH)
    assert await with_client(page, "return client.refresh()") is True


async def test_a_page_loaded_during_an_outage_finds_its_session_afterwards(
    services: Services, open_context: OpenContext
) -> None:
    user = services.register()
    context = await open_context()
    page = await context.signed_in(user)
    await page.route(_REFRESH, lambda route: route.abort("connectionrefused"))
    await page.reload()
    await logged(page, "The issuer cannot be reached.")
    assert await with_client(page, "return client.status") == "unknown"
    await page.unroute(_REFRESH)
    await shows_signed_in(page, user)  # by itself


async def test_a_refresh_under_way_does_not_bring_back_who_has_signed_out(
    services: Services, open_context: OpenContext
) -> None:
    context = await open_context()
    page = await context.signed_in()
    other = await context.tab()
    await shows_signed_in(other)
    answered, release = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        answer = await route.fetch()
        assert answer.status == 200
        answered.set()
        await release.wait()
        await route.fulfill(response=answer)

    await page.route(_REFRESH, hold)
    refreshing = asyncio.ensure_future(with_client(page, "return client.refresh()"))
    await answered.wait()
    await with_client(page, "await client.logout()")
    await shows_signed_out(page)
    await shows_signed_out(other)
    release.set()
    assert await refreshing is False
    await shows_signed_out(page)
    await shows_signed_out(other)
    assert await with_client(page, "return [client.status, await client.accessToken()]") == ["signed-out", None]


async def test_a_revoked_session_ends_in_signed_out_after_one_refresh(
    services: Services, open_context: OpenContext
) -> None:
    context = await open_context()
    page = await context.signed_in()
    await is_live(page)
    reasons = """globalThis.reasons = [];
        client.addEventListener("signedout", ({ detail }) => reasons.push([detail.reason, detail.by]));"""
    await with_client(page, reasons)
    token = await with_client(page, "return client.accessToken()")
    httpx2.post(f"{services.issuer}/user/logout", headers={"Authorization": f"Bearer {token}"}).raise_for_status()
    statuses = await with_client(
        page,
        """const answers = await Promise.all(Array.from({ length: 5 }, () => client.fetch("/api/me")));
        return answers.map((answer) => answer.status);""",
    )
    assert set(statuses) == {401}
    await shows_signed_out(page)
    assert await page.evaluate("reasons") == [["refresh_token_revoked", "the service"]]
    assert context.refreshes == 1


async def test_what_one_user_asked_for_is_not_asked_again_in_the_name_of_the_next(
    services: Services, open_context: OpenContext
) -> None:
    one, other = services.register(), services.register()
    context = await open_context()
    page = await context.signed_in(one)
    bearers: list[str] = []

    async def refuse_once_others_took_over(route: Route) -> None:
        bearers.append(route.request.headers["authorization"])
        credentials = {"email": other.email, "password": PASSWORD}
        await with_client(page, "await client.login(argument)", credentials)
        await route.fulfill(status=401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})

    await page.route("**/api/transfers", refuse_once_others_took_over)
    status = await with_client(page, "return (await client.fetch('/api/transfers', { method: 'POST' })).status")
    assert status == 401
    assert len(bearers) == 1
    await shows_signed_in(page, other)


async def test_the_access_token_goes_to_listed_origins_alone(services: Services, open_context: OpenContext) -> None:
    context = await open_context(bypass_csp=True)
    page = await context.signed_in()
    seen: dict[str, dict[str, str]] = {}

    async def answer(route: Route) -> None:
        seen[route.request.url] = await route.request.all_headers()
        headers = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*"}
        await route.fulfill(status=200, headers=headers, body="")

    async def redirect(route: Route) -> None:
        seen[route.request.url] = await route.request.all_headers()
        await route.fulfill(status=302, headers={"Location": "https://elsewhere.test/redirected"})

    await page.route("https://elsewhere.test/**", answer)
    await page.route("**/api/moved", redirect)
    results: list[Any] = await with_client(
        page,
        """const outcome = (url) => client.fetch(url).then(({ status }) => status, ({ name }) => name);
        return Promise.all(["https://elsewhere.test/", "/api/moved"].map(outcome));""",
    )
    assert results == [200, "TypeError"]
    assert "authorization" not in seen["https://elsewhere.test/"]
    assert "authorization" in seen[f"{services.gateway}/api/moved"]
    assert "https://elsewhere.test/redirected" not in seen
    assert context.strays == ["https://elsewhere.test/"]
    context.requests.clear()
