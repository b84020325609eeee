"""The cookie transport: what is in the cookie and what is not, and from which pages it may be used."""

from http.cookies import SimpleCookie

import httpx2
import pytest

from tests.support.service import PASSWORD, WINDOW, Service, problem
from tests.support.tokens import generation_of

_NAME = "__Host-refresh_token"
_APP = {"Origin": "https://app.test"}


async def _sign_in(service: Service, client: httpx2.AsyncClient, *, name: str = "ada") -> httpx2.Response:
    """Sign a new user in over the cookie transport; the client's jar then holds the cookie."""
    body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD, "transport": "cookie"}
    answer = await client.post("/user/register", json=body, headers=_APP)
    assert answer.status_code == 201, answer.text
    return answer


async def test_the_refresh_token_is_only_in_a_cookie_that_no_script_and_no_other_site_gets(service: Service) -> None:
    async with service.client() as browser:
        answer = await _sign_in(service, browser)
        assert "refresh_token" not in answer.json()
        [header] = answer.headers.get_list("set-cookie")
        [cookie] = SimpleCookie(header).values()
        assert cookie.key == _NAME
        assert cookie.value not in answer.text
        attributes = {name: value for name, value in cookie.items() if value}
        assert attributes == {
            "httponly": True, "secure": True, "samesite": "strict", "path": "/", "max-age": "604800",
        }  # fmt: skip


async def test_the_cookie_refreshes_and_is_set_anew_only_for_a_new_generation(service: Service) -> None:
    async with service.client(headers=_APP) as browser:
        await _sign_in(service, browser)
        first = browser.cookies[_NAME]
        rotated = await browser.post("/user/refresh-token")
        assert "refresh_token" not in rotated.json()
        assert generation_of(browser.cookies[_NAME]) == 2
        held = await browser.post("/user/refresh-token", json={})
        assert held.status_code == 200
        assert "set-cookie" not in held.headers
        replayed = await service.http.post("/user/refresh-token", headers=_APP | {"Cookie": f"{_NAME}={first}"})
        [cookie] = SimpleCookie(replayed.headers["set-cookie"]).values()
        assert generation_of(cookie.value) == 2


async def test_a_session_keeps_its_transport(service: Service) -> None:
    async with service.client(headers=_APP) as browser:
        await _sign_in(service, browser)
        token = browser.cookies[_NAME]
        # A script that got hold of the token gets no further one into its hands.
        answer = await service.http.post("/user/refresh-token", json={"refresh_token": token}, headers=_APP)
        assert answer.status_code == 200
        assert "refresh_token" not in answer.json()
        assert _NAME in answer.headers["set-cookie"]
        without_origin = await service.http.post("/user/refresh-token", json={"refresh_token": token})
        assert problem(without_origin) == (403, "origin_not_allowed")


async def test_a_body_token_counts_before_the_cookie(service: Service) -> None:
    user = await service.register()
    async with service.client(headers=_APP) as browser:
        await _sign_in(service, browser)
        answer = await browser.post("/user/refresh-token", json={"refresh_token": user.refresh_token})
        assert answer.json()["user"]["id"] == user.id
        assert generation_of(browser.cookies[_NAME]) == 1


async def test_a_login_over_the_cookie_ends_the_session_whose_cookie_it_replaces(service: Service) -> None:
    async with service.client(headers=_APP) as browser:
        await _sign_in(service, browser)
        replaced = browser.cookies[_NAME]
        await _sign_in(service, browser, name="bob")
        assert browser.cookies[_NAME] != replaced
        refused = await service.http.post("/user/refresh-token", headers=_APP | {"Cookie": f"{_NAME}={replaced}"})
        assert problem(refused) == (401, "refresh_token_revoked")
        assert "set-cookie" not in refused.headers, "a refused refresh leaves the cookie: it may be a newer one's"
        mine = await browser.post("/user/refresh-token")
        assert mine.json()["user"]["username"] == "bob"


async def test_logout_clears_the_cookie(service: Service) -> None:
    async with service.client(headers=_APP) as browser:
        await _sign_in(service, browser)
        token = browser.cookies[_NAME]
        answer = await browser.post("/user/logout")
        assert answer.status_code == 204
        assert _NAME not in browser.cookies
        assert "max-age=0" in answer.headers["set-cookie"].lower()
        refused = await service.http.post("/user/refresh-token", headers=_APP | {"Cookie": f"{_NAME}={token}"})
        assert problem(refused) == (401, "refresh_token_revoked")


async def test_after_the_window_the_old_cookie_is_reuse(service: Service) -> None:
    async with service.client(headers=_APP) as browser:
        await _sign_in(service, browser)
        stolen = browser.cookies[_NAME]
        await browser.post("/user/refresh-token")
        service.advance(seconds=WINDOW + 1)
        answer = await service.http.post("/user/refresh-token", headers=_APP | {"Cookie": f"{_NAME}={stolen}"})
        assert problem(answer) == (401, "refresh_token_reused")
        assert problem(await browser.post("/user/refresh-token")) == (401, "refresh_token_revoked")


_CALLERS = {
    "the issuer's own page": ({"Origin": "https://auth.test", "Sec-Fetch-Site": "same-origin"}, None),
    "an allowed origin": ({"Origin": "https://app.test", "Sec-Fetch-Site": "same-site"}, None),
    "an allowed origin, an old browser": ({"Origin": "https://app.test"}, None),
    "no origin, same origin by fetch metadata": ({"Sec-Fetch-Site": "same-origin"}, None),
    "an allowed origin on another site": (
        {"Origin": "https://app.test", "Sec-Fetch-Site": "cross-site"},
        "cookie_needs_same_site",
    ),
    "a sibling subdomain": ({"Origin": "https://evil.test", "Sec-Fetch-Site": "same-site"}, "origin_not_allowed"),
    "a foreign site": ({"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, "origin_not_allowed"),
    "the opaque origin": ({"Origin": "null", "Sec-Fetch-Site": "cross-site"}, "origin_not_allowed"),
    "a prefix of an allowed origin": ({"Origin": "https://app.test.evil.example"}, "origin_not_allowed"),
    "another port": ({"Origin": "https://app.test:8443"}, "origin_not_allowed"),
    "another scheme": ({"Origin": "http://app.test"}, "origin_not_allowed"),
    "no origin": ({}, "origin_not_allowed"),
    "no origin, same site": ({"Sec-Fetch-Site": "same-site"}, "origin_not_allowed"),
    "a typed address": ({"Sec-Fetch-Site": "none"}, "origin_not_allowed"),
}


@pytest.mark.parametrize("route", ["register", "login", "login with a cookie", "refresh-token", "logout"])
async def test_who_may_use_the_cookie_where(service: Service, route: str) -> None:
    for number, (caller, (headers, refusal)) in enumerate(_CALLERS.items()):
        await _check_caller(service, caller, headers, refusal, route, name=f"ada{number}")


async def _check_caller(
    service: Service, caller: str, headers: dict[str, str], refusal: str | None, route: str, *, name: str
) -> None:
    async with service.client() as browser:
        await _sign_in(service, browser, name=name)
        live = len(await service.sql("SELECT 1 FROM sessions WHERE revoked_at IS NULL"))
        cookie = {"Cookie": f"{_NAME}={browser.cookies[_NAME]}"}
    names = {"username": f"other{name}", "email": f"other{name}@example.com"}
    credentials = {"email": f"{name}@example.com", "password": PASSWORD}
    path, body, extra = {
        "register": ("/user/register", {**names, "password": PASSWORD, "transport": "cookie"}, {}),
        "login": ("/user/login", {**credentials, "transport": "cookie"}, {}),
        "login with a cookie": ("/user/login", credentials, cookie),
        "refresh-token": ("/user/refresh-token", {}, cookie),
        "logout": ("/user/logout", {}, cookie),
    }[route]
    answer = await service.http.post(path, json=body, headers={**headers, **extra})
    if refusal is None:
        assert answer.status_code in (200, 201, 204), (caller, answer.text)
    else:
        assert problem(answer) == (403, refusal), caller
        assert "set-cookie" not in answer.headers
        assert len(await service.sql("SELECT 1 FROM sessions WHERE revoked_at IS NULL")) == live


async def test_native_clients_need_none_of_it(service: Service) -> None:
    user = await service.register()
    for headers in ({}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = await service.http.post(
            "/user/refresh-token", json={"refresh_token": user.refresh_token}, headers=headers
        )
        assert answer.status_code == 200


async def test_cors_is_for_exact_origins_with_credentials(service: Service) -> None:
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    allowed = await service.http.options("/user/login", headers=preflight | _APP)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://app.test"
    assert allowed.headers["access-control-allow-credentials"] == "true"
    refused = await service.http.options("/user/login", headers=preflight | {"Origin": "https://evil.test"})
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers
    for path in ("/user/me", "/nowhere", "/.well-known/jwks.json"):
        answer = await service.http.get(path, headers=_APP)
        assert answer.headers["access-control-allow-origin"] == "https://app.test"
        assert "origin" in answer.headers["vary"].lower()


async def test_a_form_cannot_reach_a_cookie_route(service: Service) -> None:
    async with service.client(headers=_APP) as browser:
        await _sign_in(service, browser)
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            for path in ("/user/refresh-token", "/user/logout", "/user/login"):
                answer = await browser.post(path, content=b"", headers={"Content-Type": content_type})
                assert problem(answer) == (415, "unsupported_media_type")
