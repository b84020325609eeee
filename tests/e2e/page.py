"""The page as a person uses it, and what its browser asked for meanwhile."""

import re
from typing import Any

from playwright.async_api import BrowserContext, Page, Request, expect

from tests.support.gateway import Services
from tests.support.service import PASSWORD, SignedIn

_CLIENT = "const { client } = await import('/static/app.js');"


class Context:
    """One browser context on the services; its tabs share cookies and storage."""

    def __init__(self, services: Services, context: BrowserContext) -> None:
        self.services = services
        self.browser_context = context
        self.requests: list[Request] = []
        self.complaints: list[str] = []
        """Errors of the console and uncaught exceptions, in any tab."""
        self.sockets: list[str] = []
        context.on("request", lambda request: self.requests.append(request))
        context.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))

    async def tab(self, path: str = "/") -> Page:
        page = await self.browser_context.new_page()
        page.on("websocket", lambda socket: self.sockets.append(socket.url))
        await page.goto(self.services.gateway + path)
        return page

    async def signed_in(self, user: SignedIn | None = None) -> Page:
        """A tab in which `user`, or a new one, has signed in."""
        page = await self.tab()
        await sign_in(page, user or self.services.register())
        return page

    @property
    def refreshes(self) -> int:
        return sum(request.url.endswith("/user/refresh-token") for request in self.requests if request.method == "POST")

    @property
    def strays(self) -> list[str]:
        """What was asked for elsewhere than from the two services."""
        hosts = (self.services.issuer + "/", self.services.gateway + "/")
        sockets = self.services.gateway.replace("http", "ws", 1) + "/"
        asked = [request.url for request in self.requests if not request.url.startswith(("data:", "blob:"))]
        return [url for url in asked if not url.startswith(hosts)] + [
            url for url in self.sockets if not url.startswith(sockets)
        ]


async def sign_in(page: Page, user: SignedIn) -> None:
    await page.get_by_label("E-mail or user name").fill(user.email)
    await page.get_by_label("Password", exact=True).first.fill(PASSWORD)
    await page.keyboard.press("Enter")
    await shows_signed_in(page, user)


async def shows_signed_in(page: Page, user: SignedIn | None = None) -> None:
    await expect(page.locator("#state")).to_have_text(
        f"Signed in as {user.username}" if user else re.compile("^Signed in")
    )
    await expect(page.locator("#signed-in")).to_be_visible()


async def shows_signed_out(page: Page, *, seconds: float = 5) -> None:
    await expect(page.locator("#signed-out")).to_be_visible(timeout=seconds * 1000)
    await expect(page.locator("#state")).to_have_text("Signed out")


async def is_live(page: Page) -> None:
    await expect(page.locator("#live")).to_have_text("Connected")


async def with_client(page: Page, script: str, argument: object = None) -> Any:
    """Run `script`, which may use the page's own `client` and `argument`; answers what it returns."""
    return await page.evaluate(f"async (argument) => {{ {_CLIENT} {script} }}", argument)


async def logged(page: Page, text: str) -> None:
    await expect(page.locator("#activity")).to_contain_text(text)
