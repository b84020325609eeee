"""The page itself: its forms, what a script in it could steal, its policy, and how it fits a phone."""

import asyncio
import re
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.e2e.conftest import OpenContext
from tests.e2e.page import is_live, logged, shows_signed_in, shows_signed_out, sign_in, with_client
from tests.support.command import environment, spawned
from tests.support.gateway import Services
from tests.support.service import PASSWORD

_COOKIE = "__Host-refresh_token"


async def _call(page: Page, path: str) -> str:
    """The status and explanation shown for a route, after a click on its button."""
    row = page.locator(f'#calls li[data-path="{path}"]')
    await row.get_by_role("button").click()
    await expect(row.locator(".status")).to_be_visible()
    await expect(row.get_by_role("button")).to_be_enabled()
    return await row.locator(".answer").inner_text()


async def test_registering_says_what_is_wrong_next_to_the_field(services: Services, open_context: OpenContext) -> None:
    taken = services.register()
    context = await open_context()
    page = await context.tab()
    await page.get_by_role("tab", name="Create account").click()
    name, email, password = (page.locator(f"#register-{field}") for field in ("username", "email", "password"))
    await name.fill(taken.username)
    await email.fill("no address")
    await password.fill("short")
    submit = page.get_by_role("button", name="Create the account")
    await submit.click()
    await expect(page.locator("#register-email-error")).not_to_be_empty()
    await expect(email).to_have_attribute("aria-invalid", "true")
    await expect(email).to_be_focused()
    await email.fill(f"new-{taken.email}")
    await submit.click()
    await expect(page.locator("#register-password-error")).to_contain_text("at least 12 characters")
    await expect(page.locator("#register-email-error")).to_be_empty()
    await password.fill(PASSWORD)
    await submit.click()
    await expect(page.locator("#register-username-error")).to_contain_text("Another account has this user name")
    await name.fill(f"new-{taken.username}")
    await submit.click()
    await expect(page.locator("#user-email")).to_have_text(f"new-{taken.email}")


async def test_a_wrong_password_is_said_in_the_form(services: Services, open_context: OpenContext) -> None:
    context = await open_context()
    page = await context.tab()
    await page.get_by_label("E-mail or user name").fill(services.register().username)
    await page.get_by_label("Password", exact=True).first.fill("wrong wrong wrong")
    await page.keyboard.press("Enter")
    await expect(page.locator("#login .whole")).to_have_text("The account or the password is not right.")
    assert await page.get_by_label("E-mail or user name").input_value() != "", "nothing that was typed is lost"


async def test_every_route_is_answered_and_a_missing_scope_is_explained(
    services: Services, open_context: OpenContext
) -> None:
    user = services.register()
    context = await open_context()
    page = await context.signed_in(user)
    assert "200" in await _call(page, "/api/public")
    assert user.id in await _call(page, "/api/me")
    assert "200" in await _call(page, "/api/transfers")
    refused = await _call(page, "/api/reports")
    assert "403" in refused
    grant = f"users grant {user.username} reports:read"
    assert grant in refused
    done = await asyncio.to_thread(spawned, *grant.split(), env=environment(services.settings))
    assert done.code == 0, done.err
    await page.get_by_role("button", name="Sign out", exact=True).first.click()
    await shows_signed_out(page)
    await sign_in(page, user)
    assert "200" in await _call(page, "/api/reports")


async def test_my_sessions_are_listed_and_ended_one_by_one(services: Services, open_context: OpenContext) -> None:
    user = services.register()
    context, elsewhere = await open_context(), await open_context()
    there = await elsewhere.signed_in(user)
    page = await context.signed_in(user)
    rows = page.locator("#sessions > li")
    await expect(rows).to_have_count(3)  # one more is that of the registration
    assert await rows.filter(has_text="this one").count() == 1
    await expect(rows.first).to_contain_text("Chrome")
    await expect(rows.first).to_contain_text("on Linux")
    await rows.filter(has_text="Chrome").filter(has_not_text="this one").get_by_role("button").click()
    await expect(rows).to_have_count(2)
    await shows_signed_out(there)
    await rows.filter(has_text="this one").get_by_role("button").click()
    await shows_signed_out(page)


async def test_changing_the_password_ends_the_other_sessions(services: Services, open_context: OpenContext) -> None:
    user = services.register()
    context, elsewhere = await open_context(), await open_context()
    there = await elsewhere.signed_in(user)
    await is_live(there)
    page = await context.signed_in(user)
    await page.get_by_role("heading", name="Change the password").click()
    await page.get_by_label("Current password").fill("wrong wrong wrong")
    await page.get_by_label("New password").fill("short")
    submit = page.get_by_role("button", name="Change it")
    await submit.click()
    await expect(page.locator("#password-next-error")).to_contain_text("at least 12 characters")
    await page.get_by_label("New password").fill("another long password")
    await submit.click()
    await expect(page.locator("#password .whole")).not_to_be_empty()
    before = context.refreshes
    await page.get_by_label("Current password").fill(PASSWORD)
    await submit.click()
    await logged(page, "The password is changed")
    await shows_signed_out(there)
    await shows_signed_in(page, user)
    assert context.refreshes == before == 0, "a wrong password is no reason to refresh"


async def test_the_refresh_token_is_in_no_place_that_a_script_can_read(
    services: Services, open_context: OpenContext
) -> None:
    context = await open_context()
    bodies: list[str] = []
    reading: list[asyncio.Task[Any]] = []

    async def read(response: Any) -> None:
        if response.request.resource_type in ("fetch", "xhr"):
            bodies.append(await response.text())

    context.browser_context.on("response", lambda answer: reading.append(asyncio.ensure_future(read(answer))))
    listener = await context.tab("/healthz")
    await listener.evaluate(
        """(issuer) => {
            globalThis.heard = [];
            new BroadcastChannel(`auth-client ${issuer}`).onmessage = ({ data }) => heard.push(JSON.stringify(data));
        }""",
        services.issuer,
    )
    page = await context.signed_in()
    await is_live(page)
    await with_client(page, "await client.refresh()")
    access_token = await with_client(page, "return client.accessToken()")
    [cookie] = await context.browser_context.cookies(services.issuer)
    assert (cookie["name"], cookie["httpOnly"], cookie["secure"]) == (_COOKIE, True, True)
    assert cookie["sameSite"] == "Strict"
    refresh_token = cookie["value"]
    stored = await page.evaluate(
        """async () => JSON.stringify({
            cookie: document.cookie,
            cookies: globalThis.cookieStore ? await cookieStore.getAll() : [],
            local: { ...localStorage }, session: { ...sessionStorage },
            databases: await indexedDB.databases(), caches: await caches.keys(),
            name: window.name, history: history.state, page: document.documentElement.outerHTML,
        })"""
    )
    # Everything that can be reached from the page's global objects and from the sign-in client, by reading properties.
    reachable = await with_client(
        page,
        """globalThis.planted = { deep: [new Map(), { value: "planted" }] };
        const seen = new Set(), found = [], queue = [globalThis, client, await import('/static/auth-client.js')];
        while (queue.length > 0 && seen.size < 200_000) {
            const value = queue.pop();
            if (typeof value === "string") found.push(value);
            if (value === null || !["object", "function"].includes(typeof value) || seen.has(value)) continue;
            seen.add(value);
            for (const key of Reflect.ownKeys(value)) {
                try { queue.push(value[key]); } catch {}
            }
        }
        return found.join("\\n");""",
    )
    await asyncio.gather(*reading)
    messages = "\n".join(await listener.evaluate("heard"))
    secret = refresh_token.rpartition(".")[2]
    for place in (stored, reachable, messages, *bodies):
        assert secret not in place
        assert refresh_token not in place
    assert "access_token" not in stored
    assert access_token not in stored
    # And these searches do find what is there.
    assert access_token in messages
    assert any(access_token in body for body in bodies)
    assert "planted" in reachable
    assert "auth-client" in stored


async def test_the_page_keeps_to_its_strict_policy_and_complains_of_nothing(
    services: Services, open_context: OpenContext
) -> None:
    context = await open_context()
    await context.browser_context.add_init_script(
        """globalThis.violations = [];
        document.addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));"""
    )
    page = await context.signed_in()
    await is_live(page)
    for path in ("/api/public", "/api/me", "/api/transfers"):
        assert "200" in await _call(page, path)
    await page.get_by_role("button", name="Refresh now").click()
    await logged(page, "Refreshed the access token.")
    await page.get_by_role("button", name="Reload").click()
    await page.reload()
    await is_live(page)
    await page.get_by_role("button", name="Sign out", exact=True).first.click()
    await shows_signed_out(page)
    assert await page.evaluate("violations") == []
    assert context.complaints == []
    # A script that an attacker gets into the page does not run, and could not tell another host.
    await page.evaluate(
        """async () => {
            for (const [name, content] of [["script", "globalThis.stolen = true"], ["style", "body { color: red }"]]) {
                try {
                    const made = document.createElement(name);
                    made.textContent = content;
                    document.body.append(made);
                } catch {}
            }
            try { document.body.innerHTML += "<img src=x onerror='globalThis.stolen = true'>"; } catch {}
            await fetch("https://elsewhere.test/").catch(() => {});
        }"""
    )
    assert await page.evaluate("globalThis.stolen") is None
    violations = await page.evaluate("violations")
    assert "connect-src" in violations
    assert any(name.startswith(("script-src", "require-trusted-types-for")) for name in violations)


async def test_nothing_of_a_user_is_left_for_the_next(services: Services, open_context: OpenContext) -> None:
    user, other = services.register(), services.register()
    context = await open_context()
    page = await context.signed_in(user)
    await expect(page.locator("#sessions > li")).to_have_count(2)
    await page.locator("#password-title").click()

    async def type_passwords() -> None:
        for place in ("#password-current", "#password-next"):
            await page.locator(place).fill("typed and not sent")

    async def is_all_gone() -> None:
        kept = await page.evaluate(
            "document.documentElement.outerHTML + [...document.querySelectorAll('input')].map((i) => i.value)"
        )
        for secret in (user.username, user.email, user.id, session, "typed and not sent"):
            assert secret not in kept

    session = await with_client(page, "return client.sessionId")
    await type_passwords()
    await _call(page, "/api/me")
    # Another takes over, as from another tab.
    await with_client(page, "await client.login(argument)", {"email": other.email, "password": PASSWORD})
    await shows_signed_in(page, other)
    await expect(page.locator("#sessions > li")).to_have_count(2)
    await is_all_gone()
    await with_client(page, "await client.login(argument)", {"email": user.email, "password": PASSWORD})
    session = await with_client(page, "return client.sessionId")
    await type_passwords()
    await with_client(page, "await client.logout()")
    await shows_signed_out(page)
    await is_all_gone()


async def test_a_sign_out_that_fails_is_said_where_a_phone_shows_it(
    services: Services, open_context: OpenContext
) -> None:
    context = await open_context(viewport={"width": 390, "height": 844})
    page = await context.signed_in()
    await page.route("**/user/logout", lambda route: route.abort("connectionrefused"))
    await page.get_by_role("button", name="Sign out", exact=True).first.click()
    said = page.locator("#actions-error")
    await expect(said).to_contain_text("You are still signed in.")
    await expect(said).to_be_in_viewport()
    await page.unroute("**/user/logout")
    await page.get_by_role("button", name="Sign out", exact=True).first.click()
    await shows_signed_out(page)


async def test_the_keyboard_keeps_its_place(services: Services, open_context: OpenContext) -> None:
    user = services.register()
    context = await open_context()
    page = await context.signed_in(user)
    await expect(page.locator("#main")).to_be_focused()
    for button in (page.locator("#refresh"), page.locator("#calls button").first, page.locator("#reload-sessions")):
        await button.focus()
        await page.keyboard.press("Enter")
        await expect(button).to_be_enabled()
        await expect(button).to_be_focused()
    await expect(page.locator("#sessions > li")).to_have_count(2)
    ended = page.locator("#sessions > li").filter(has_not_text="this one").get_by_role("button")
    assert ", since " in (await ended.get_attribute("aria-label") or "")
    await ended.focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#sessions > li")).to_have_count(1)
    await expect(page.locator("#reload-sessions")).to_be_focused()


async def test_a_throttled_sign_in_says_once_when_to_try_again(services: Services, open_context: OpenContext) -> None:
    context = await open_context()
    page = await context.tab()
    name, said = services.register().username, page.locator("#login .whole")
    await page.get_by_label("E-mail or user name").fill(name)
    for _ in range(30):
        await page.get_by_label("Password", exact=True).first.fill("wrong wrong wrong")
        async with page.expect_response("**/user/login"):
            await page.keyboard.press("Enter")
        await expect(said).not_to_be_empty()
        if "Try again" in await said.inner_text():
            break
    await expect(said).to_have_text(re.compile(r"^There has been too much from this client\. Try again in \d+ s\.$"))


async def test_a_session_whose_cookie_is_gone_is_over_and_said_to_be(
    services: Services, open_context: OpenContext
) -> None:
    context = await open_context()
    page = await context.signed_in()
    await context.browser_context.clear_cookies()
    await page.reload()
    await shows_signed_out(page)
    await logged(page, "The session is over: its cookie has expired or was deleted. Sign in again.")


@pytest.mark.parametrize("width", [320, 390, 1280])
async def test_nothing_is_wider_than_the_screen(services: Services, open_context: OpenContext, width: int) -> None:
    context = await open_context(viewport={"width": width, "height": 844})
    page = await context.tab()
    await shows_signed_out(page)
    measure = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    scrolled, shown = await page.evaluate(measure)
    assert scrolled <= shown
    await sign_in(page, services.register(username=f"{width}".ljust(64, "w")))
    for path in ("/api/public", "/api/me", "/api/reports", "/api/transfers"):
        await _call(page, path)
    scrolled, shown = await page.evaluate(measure)
    assert scrolled <= shown
