"""The page's live connection: what it shows is what it hears, and a good one is not given up for a bad one."""

from playwright.async_api import WebSocketRoute, expect

from tests.e2e.conftest import OpenContext
from tests.e2e.page import is_live, logged, with_client
from tests.support.gateway import Services


async def test_a_connection_that_falls_silent_is_said_to_be_lost_and_is_opened_again(
    services: Services, open_context: OpenContext
) -> None:
    context = await open_context()
    silent = False
    opened = 0

    def forward(socket: WebSocketRoute) -> None:
        nonlocal opened
        opened += 1
        server = socket.connect_to_server()
        server.on_message(lambda message: None if silent else socket.send(message))

    await context.browser_context.route_web_socket("**/api/live", forward)
    page = await context.signed_in()
    await is_live(page)
    await expect(page.locator("#live-tick")).to_contain_text("Tick")
    silent = True
    await expect(page.locator("#live")).to_have_text("Connection lost", timeout=8_000)
    await expect(page.locator("#live")).to_have_attribute("data-tone", "warning")
    silent = False
    await is_live(page)
    await expect(page.locator("#live-tick")).to_contain_text("Tick")
    assert opened > 1


async def test_a_refused_newer_connection_leaves_the_older_one_in_place(
    services: Services, open_context: OpenContext
) -> None:
    context = await open_context()
    await context.browser_context.add_init_script(
        """globalThis.refused = 0;
        globalThis.WebSocket = class extends WebSocket {
            constructor(address, protocols) {
                super(globalThis.refusing ? new URL("/api/nothing", address) : address, protocols);
                if (globalThis.refusing) this.addEventListener("close", () => refused += 1);
            }
        };"""
    )
    page = await context.signed_in()
    await is_live(page)
    await page.evaluate(
        """refusing = true;
        globalThis.shown = [];
        new MutationObserver(() => shown.push(document.getElementById("live").textContent))
            .observe(document.getElementById("live"), { childList: true, characterData: true, subtree: true });"""
    )
    await with_client(page, "await client.refresh()")
    await logged(page, "Refreshed the access token.")
    await page.wait_for_function("refused > 0")
    tick = await page.locator("#live-tick").text_content()
    await expect(page.locator("#live-tick")).not_to_have_text(tick or "")
    assert await page.evaluate("shown") == [], "the older connection ticks on"
