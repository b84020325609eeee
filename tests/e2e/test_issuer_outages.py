"""What the sign-in client does while the issuer is away, hangs, or answers into the void: nobody is signed out by it,
and nobody is told that something is done which is not.
"""

import asyncio
from typing import Any

import httpx2
import pytest
from playwright.async_api import Page, Route, expect

from tests.e2e.conftest import OpenContext
from tests.e2e.page import Context, logged, shows_signed_in, shows_signed_out, with_client
from tests.support.gateway import Services
from tests.support.service import PASSWORD

_REFRESH = "**/user/refresh-token"
_REASONS = """globalThis.reasons = [];
    client.addEventListener("signedout", ({ detail }) => reasons.push([detail.reason, detail.by]));"""
_OUTCOME = "const outcome = (work) => work.then(String, (error) => error.name);"


def _cors(services: Services) -> dict[str, str]:
    return {
        "Access-Control-Allow-Origin": services.gateway,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": "Retry-After",
    }


async def _refuse(route: Route) -> None:
    await route.abort("connectionrefused")


async def _rotated_in_vain(context: Context) -> int:
    """A refresh with the browser's cookie, whose answer the browser never gets."""
    [cookie] = await context.browser_context.cookies(context.services.issuer)
    async with httpx2.AsyncClient() as http:
        answer = await http.post(
            f"{context.services.issuer}/user/refresh-token",
            headers={"Cookie": f"{cookie['name']}={cookie['value']}", "Origin": context.services.gateway},
        )
    assert "set-cookie" in answer.headers
    return answer.status_code


@pytest.mark.parametrize("hidden", [False, True])
async def test_after_a_lost_answer_a_refresh_is_sent_again_well_within_the_replay_window(
    services: Services, open_context: OpenContext, hidden: bool
) -> None:
    user = services.register()
    context = await open_context()
    page = await context.signed_in(user)
    if hidden:
        await page.evaluate("Object.defineProperty(document, 'hidden', { get: () => true })")
    await page.route(_REFRESH, _refuse)
    for _ in range(1 if hidden else 6):
        await with_client(page, "await client.refresh().catch(() => {})")
    statuses: list[int] = []

    async def lose(route: Route) -> None:
        if not statuses:
            statuses.append(await _rotated_in_vain(context))
        await route.abort("connectionreset")

    await page.unroute(_REFRESH)
    await page.route(_REFRESH, lose)
    assert await with_client(page, "return client.refresh().catch((error) => error.name)") == "Unreachable"
    assert statuses == [200]
    await page.unroute(_REFRESH)
    # By itself, ten seconds later at most: a third of the window.
    await expect(page.locator("#activity")).to_contain_text("Refreshed the access token.", timeout=14_000)
    await shows_signed_in(page, user)


async def test_after_a_series_that_failed_one_request_at_a_time_is_sent_until_some_tab_has_an_answer(
    services: Services, open_context: OpenContext
) -> None:
    context = await open_context()
    page = await context.signed_in()
    other = await context.tab()
    await shows_signed_in(other)
    await page.route(_REFRESH, _refuse)
    refresh = "return client.refresh().catch((error) => error.name)"
    requests = []
    for _ in range(3):
        before = context.refreshes
        assert await with_client(page, refresh) == "Unreachable"
        requests.append(context.refreshes - before)
    assert requests == [3, 1, 1]
    assert await with_client(other, refresh) is True
    await logged(page, "Another tab refreshed the access token.")
    before = context.refreshes
    assert await with_client(page, refresh) == "Unreachable"
    assert context.refreshes - before == 3, "what failed before is past, for all tabs"


async def test_tabs_in_line_behind_a_hung_issuer_take_the_first_ones_failure_for_theirs(
    services: Services, open_context: OpenContext
) -> None:
    user = services.register()
    context = await open_context()
    first = await context.signed_in(user)
    others = [await context.tab() for _ in range(3)]
    await asyncio.gather(*[shows_signed_in(page, user) for page in others])
    newcomer = await context.tab("/healthz")
    asked, hang = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        asked.set()
        await hang.wait()
        await route.abort("timedout")

    await first.route(_REFRESH, hold)
    refresh = "return client.refresh().catch((error) => error.name)"
    holding = asyncio.ensure_future(with_client(first, refresh))
    await asked.wait()
    waiting = [asyncio.ensure_future(with_client(page, refresh)) for page in others]
    signing_in = asyncio.ensure_future(
        newcomer.evaluate(
            """async ([issuer, credentials]) => {
                const { AuthClient } = await import("/static/auth-client.js");
                const client = new AuthClient({ issuer });
                return client.login(credentials).then((user) => user.username, (error) => error.name);
            }""",
            [services.issuer, {"email": user.email, "password": PASSWORD}],
        )
    )
    await first.evaluate(
        """async (count) => {
            const inLine = async () => (await navigator.locks.query()).pending.length;
            while (await inLine() < count) await new Promise((resolve) => setTimeout(resolve));
        }""",
        len(waiting) + 1,
    )
    hang.set()
    assert await holding == "Unreachable"
    assert await asyncio.gather(*waiting, signing_in) == ["Unreachable"] * 4
    for page in others:
        await logged(page, "You stay signed in")
        await shows_signed_in(page, user)


async def test_while_it_is_not_known_who_is_signed_in_nothing_goes_out_anonymously(
    services: Services, open_context: OpenContext
) -> None:
    context = await open_context()
    page = await context.signed_in()
    await page.route(_REFRESH, _refuse)
    await page.reload()
    await logged(page, "The issuer cannot be reached.")
    await expect(page.get_by_role("heading", name="Looking for your session…")).to_be_visible()
    before = len(context.requests)
    outcomes = await with_client(
        page,
        f"""{_OUTCOME}
        const calls = [() => client.fetch("/api/public"), () => client.me(), () => client.logoutEverywhere()];
        const outcomes = [client.status];
        for (const call of calls) outcomes.push(await outcome(call()));
        return outcomes;""",
    )
    assert outcomes == ["unknown", "Unreachable", "Unreachable", "Unreachable"]
    assert {request.url for request in context.requests[before:]} == {f"{services.issuer}/user/refresh-token"}
    await page.unroute(_REFRESH)
    await with_client(page, "await client.logoutEverywhere()")
    await shows_signed_out(page)
    await logged(page, "Signed out everywhere.")


async def test_signing_out_everywhere_is_done_where_only_its_answer_was_lost(
    services: Services, open_context: OpenContext
) -> None:
    user = services.register()
    context = await open_context()
    page = await context.signed_in(user)
    await with_client(page, _REASONS)
    statuses: list[int] = []

    async def lose_the_first(route: Route) -> None:
        if statuses or route.request.method != "DELETE":
            await route.continue_()
            return
        bearer = {"Authorization": route.request.headers["authorization"]}
        async with httpx2.AsyncClient() as http:
            statuses.append((await http.delete(route.request.url, headers=bearer)).status_code)
        await route.abort("connectionreset")

    await page.route("**/user/sessions", lose_the_first)
    await with_client(page, "await client.logoutEverywhere()")
    assert statuses == [204]
    assert await page.evaluate("reasons") == [["logout_everywhere", "this tab"]]
    await shows_signed_out(page)


async def test_signing_out_everywhere_with_a_refused_token_refreshes_once_and_asks_again(
    services: Services, open_context: OpenContext
) -> None:
    user = services.register()
    context = await open_context()
    page = await context.signed_in(user)
    bearers: list[str] = []

    async def refuse_the_first(route: Route) -> None:
        if route.request.method != "DELETE":
            await route.continue_()
            return
        bearers.append(route.request.headers["authorization"])
        if len(bearers) == 1:
            await route.fulfill(status=401, headers=_cors(services), json={"code": "invalid_token"})
        else:
            await route.continue_()

    await page.route("**/user/sessions", refuse_the_first)
    await with_client(page, "await client.logoutEverywhere()")
    assert len(set(bearers)) == len(bearers) == 2
    assert context.refreshes == 1
    await shows_signed_out(page)
    bearer = user.bearer  # of the registration: another session of this user
    assert httpx2.get(f"{services.issuer}/user/me", headers=bearer).status_code == 401


async def test_a_captive_portals_200_is_no_answer_of_the_issuer(services: Services, open_context: OpenContext) -> None:
    user = services.register()
    context = await open_context()
    page = await context.signed_in(user)

    async def welcome(route: Route) -> None:
        if route.request.method == "OPTIONS":
            await route.continue_()
        else:
            await route.fulfill(status=200, headers=_cors(services), content_type="text/html", body="<h1>Welcome")

    await page.route(f"{services.issuer}/user/**", welcome)
    outcomes = await with_client(
        page,
        f"""{_OUTCOME}
        const calls = [() => client.refresh(), () => client.me(), () => client.logout(),
            () => client.logoutEverywhere(), () => client.login({{ username: "a", password: "b" }})];
        const outcomes = [];
        for (const call of calls) outcomes.push(await outcome(call()));
        return outcomes;""",
    )
    assert outcomes == ["Unreachable"] * 5
    await shows_signed_in(page, user)
    assert not any("Uncaught" in complaint or "SyntaxError" in complaint for complaint in context.complaints)


async def test_a_pause_ends_with_the_callers_patience_and_a_long_one_is_the_callers(
    services: Services, open_context: OpenContext
) -> None:
    context = await open_context()
    page = await context.signed_in()
    seconds = "5"
    asked: list[str] = []

    async def later(route: Route) -> None:
        asked.append(route.request.url)
        await route.fulfill(status=503, headers={"Retry-After": seconds})

    await page.route("**/api/me", later)
    name, took = await with_client(
        page,
        """const began = performance.now();
        const name = await client.fetch("/api/me", { signal: AbortSignal.timeout(200) }).catch((error) => error.name);
        return [name, performance.now() - began];""",
    )
    assert name == "TimeoutError"
    assert took < 3_000
    asked.clear()
    seconds = "60"
    assert await with_client(page, "return (await client.fetch('/api/me')).status") == 503
    assert len(asked) == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_a_refresh_is_not_sent_before_the_issuer_wants_it(
    services: Services, open_context: OpenContext, status: int
) -> None:
    user = services.register()
    context = await open_context()
    page = await context.signed_in(user)
    await with_client(
        page,
        """globalThis.pauses = [];
        client.addEventListener("unreachable", ({ detail }) => pauses.push(detail.retryIn));""",
    )

    async def later(route: Route) -> None:
        await route.fulfill(status=status, headers={**_cors(services), "Retry-After": "20"}, json={})

    await page.route(_REFRESH, later)
    refresh = "return client.refresh().catch((error) => [error.name, error.retryAfter])"
    for _ in range(2):
        name, wait = await with_client(page, refresh)
        assert name == "Unreachable"
        assert 15 <= wait <= 20
    assert context.refreshes == 1
    [pause] = await page.evaluate("pauses")
    assert 20 <= pause <= 25
    await shows_signed_in(page, user)


async def _bare_client(page: Page, services: Services, script: str) -> Any:
    """Run `script` with `newClient`, on a page without a client of its own."""
    return await page.evaluate(
        f"""async (issuer) => {{
            const {{ AuthClient }} = await import("/static/auth-client.js");
            const newClient = () => new AuthClient({{ issuer }});
            {script}
        }}""",
        services.issuer,
    )


async def test_where_nothing_can_be_stored_signed_out_is_remembered_in_memory(
    services: Services, open_context: OpenContext
) -> None:
    page = await (await open_context()).tab("/healthz")
    script = """const forbidden = { get() { throw new DOMException("", "SecurityError"); } };
        Object.defineProperty(window, "localStorage", forbidden);
        const client = newClient(), before = client.status;
        await client.logout();
        return [before, client.status];"""
    assert await _bare_client(page, services, script) == ["unknown", "signed-out"]


async def test_a_page_without_a_secure_context_is_told_so_at_once(
    services: Services, open_context: OpenContext
) -> None:
    page = await (await open_context()).tab("/healthz")
    script = """Object.defineProperty(navigator, "locks", { value: undefined });
        try { newClient(); } catch (error) { return error.message; }"""
    assert "https, or a loopback address" in await _bare_client(page, services, script)


async def test_a_closed_client_hears_and_does_nothing_any_more(services: Services, open_context: OpenContext) -> None:
    user = services.register()
    context = await open_context()
    page = await context.tab("/healthz")
    credentials = f"{{ email: '{user.email}', password: '{PASSWORD}' }}"
    script = f"""const kept = newClient(), closed = newClient();
        const told = new Promise((resolve) => closed.addEventListener("signedin", resolve));
        await kept.login({credentials});
        await told;
        closed.close();
        await kept.logout();
        await new Promise((resolve) => {{
            const probe = newClient();
            probe.addEventListener("signedin", resolve);
            kept.login({credentials});
        }});
        closed.dispatchEvent(new Event("online"));
        return [kept.status, closed.status, kept.sessionId === closed.sessionId];"""
    assert await _bare_client(page, services, script) == ["signed-in", "signed-in", False]
