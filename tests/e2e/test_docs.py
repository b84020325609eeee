"""The issuer's docs page in a browser: under its strict policy it shows operations and calls them."""

from playwright.async_api import expect

from tests.e2e.conftest import OpenContext
from tests.support.gateway import Services

_WATCH = """globalThis.violations = [];
document.addEventListener("securitypolicyviolation", (event) => violations.push(event.effectiveDirective));"""


async def test_the_docs_page_shows_and_calls_operations_without_offending_its_policy(
    services: Services, open_context: OpenContext
) -> None:
    context = await open_context()
    await context.browser_context.add_init_script(_WATCH)
    page = await context.browser_context.new_page()
    await page.goto(f"{services.issuer}/docs")
    await expect(page.locator(".opblock").first).to_be_visible()
    # One with a form, one with JSON; all of them take the page half a minute.
    for path in ("/oauth/token", "/user/login"):
        operation = page.locator(".opblock-post", has=page.locator(f"[data-path='{path}']"))
        await operation.locator(".opblock-summary-control").click()
        await operation.locator(".try-out__btn").click()
        await expect(operation.locator("button.execute")).to_be_visible()
    await page.locator(".btn.authorize").first.click()
    await page.locator(".btn.modal-btn.btn-done").first.click()
    metadata = page.locator(".opblock", has_text="/.well-known/oauth-authorization-server")
    await metadata.locator(".opblock-summary-control").click()
    await metadata.locator(".try-out__btn").click()
    await metadata.locator("button.execute").click()
    await expect(metadata.locator(".live-responses-table .response .response-col_status")).to_contain_text("200")
    assert await page.evaluate("violations") == []
    assert context.complaints == []


async def test_what_an_attacker_gets_into_the_docs_page_does_not_run(
    services: Services, open_context: OpenContext
) -> None:
    context = await open_context()
    await context.browser_context.add_init_script(_WATCH)
    page = await context.browser_context.new_page()
    await page.goto(f"{services.issuer}/docs")
    await page.evaluate(
        """async () => {
            for (const [name, content] of [["script", "globalThis.stolen = true"], ["style", "body { color: red }"]]) {
                const made = document.createElement(name);
                made.textContent = content;
                document.body.append(made);
            }
            const image = "<img src='data:,' onerror='globalThis.stolen = true' style='top: 0'>";
            document.body.insertAdjacentHTML("beforeend", image);
            await fetch("https://elsewhere.test/").catch(() => {});
        }"""
    )
    refused = ["connect-src", "script-src-elem", "script-src-attr", "style-src-elem", "style-src-attr"]
    await page.wait_for_function("(refused) => refused.every((name) => violations.includes(name))", arg=refused)
    assert await page.evaluate("globalThis.stolen") is None
