"""The cookie transport: what is in the cookie, when it is set and cleared, and whose it is."""

from http.cookies import SimpleCookie

import httpx2
import pytest

from tests.support.service import PASSWORD, WINDOW, Service, problem
from tests.support.tokens import claims_of, generation_of

_NAME = "__Host-refresh_token"
_APP = {"Origin": "https://app.test"}
_FROM_APP = [(b"Origin", b"https://app.test")]


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
        token = browser.cookies[_NAME]
        assert token not in answer.text
        # No Domain, and the path that the prefix demands (RFC 6265bis §4.1.3.2).
        assert _attributes(header, value=token) == [
            "HttpOnly", "Max-Age=604800", "Path=/", "SameSite=Strict", "Secure",
        ]  # fmt: skip


async def test_the_cookie_ends_with_its_session(service: Service) -> None:
    async with service.client(headers=_APP) as browser:
        await _sign_in(service, browser)
        for _ in range(4):
            service.advance(seconds=6 * 86400)
            answer = await browser.post("/user/refresh-token")
        service.advance(seconds=4 * 86400)
        answer = await browser.post("/user/refresh-token")
        left = answer.json()["refresh_expires_in"]
        [row] = await service.sql("SELECT expires_at, clock_timestamp() AS now FROM sessions")
        assert left == pytest.approx((row["expires_at"] - row["now"] - service.clock.offset).total_seconds(), abs=5)
        assert left < 2 * 86400 + 1
        assert f"Max-Age={left}" in _attributes(answer.headers["set-cookie"], value=browser.cookies[_NAME])


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
        [header] = answer.headers.get_list("set-cookie")
        # A browser replaces a cookie only by one that agrees with it in all else.
        assert _attributes(header, value='""') == ["HttpOnly", "Max-Age=0", "Path=/", "SameSite=Strict", "Secure"]
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


@pytest.mark.parametrize("transport", ["cookie", "body"])
async def test_a_second_user_of_a_browser_never_gets_the_first_ones_tokens(service: Service, transport: str) -> None:
    bob = await service.register()
    async with service.client(headers=_APP) as browser:
        ada = await _sign_in(service, browser)
        adas = browser.cookies[_NAME]
        login = {"email": bob.email, "password": PASSWORD, "transport": transport}
        answer = await browser.post("/user/login", json=login)
        refreshed = await browser.post(
            "/user/refresh-token",
            json={} if transport == "cookie" else {"refresh_token": answer.json()["refresh_token"]},
        )
        for given in (answer, refreshed):
            assert given.status_code == 200
            claims = claims_of(given.json()["access_token"])
            assert (given.json()["user"]["id"], claims["sub"]) == (bob.id, bob.id)
            assert claims["sid"] != claims_of(adas)["sid"]
        # What is left in the browser is one user's alone: the second one's cookie ended the first one's session.
        left = claims_of(browser.cookies[_NAME])
        assert left["sub"] == (bob.id if transport == "cookie" else ada.json()["user"]["id"])
        live = await service.sql("SELECT id FROM sessions WHERE revoked_at IS NULL AND transport = 'cookie'")
        assert [str(row["id"]) for row in live] == [left["sid"]]


@pytest.mark.parametrize(
    "name",
    [
        "refresh_token",
        "__Secure-refresh_token",
        "__host-refresh_token",
        "__Host-Refresh_Token",
        # A sibling subdomain may set these for the whole domain: to a browser they have no prefix.
        "\xa0__Host-refresh_token",
        "\x85__Host-refresh_token",
        "__Host-refresh_token\x1f",
        "\x0b__Host-refresh_token",
        '"__Host-refresh_token"',
        "$Version=1, __Host-refresh_token",
    ],
)
async def test_a_cookie_of_another_name_is_none_of_ours(service: Service, name: str) -> None:
    async with service.client() as browser:
        await _sign_in(service, browser)
        token = browser.cookies[_NAME]
    header = f"{name}={token}".encode("latin-1")
    refused = await service.http.post("/user/refresh-token", headers=[*_FROM_APP, (b"Cookie", header)])
    assert problem(refused) == (401, "invalid_token")
    # Nor does it do any harm beside the real one.
    beside = header + f"; {_NAME}={token}".encode()
    answer = await service.http.post("/user/refresh-token", headers=[*_FROM_APP, (b"Cookie", beside)])
    assert answer.status_code == 200


@pytest.mark.parametrize("headers", [1, 2])
async def test_of_two_cookies_none_is_guessed_to_be_the_right_one(service: Service, headers: int) -> None:
    async with service.client() as browser:
        await _sign_in(service, browser)
        first = f"{_NAME}={browser.cookies[_NAME]}"
        await _sign_in(service, browser, name="bob")
        second = f"{_NAME}={browser.cookies[_NAME]}"
        known = {"email": "bob@example.com", "password": PASSWORD, "transport": "cookie"}
        live = await service.sql("SELECT id FROM sessions WHERE revoked_at IS NULL")
    for pair in ((first, second), (second, first), (second, second)):
        sent = [("Cookie", "; ".join(pair))] if headers == 1 else [("Cookie", cookie) for cookie in pair]
        for path, body in (("/user/refresh-token", {}), ("/user/logout", {}), ("/user/login", known)):
            answer = await service.http.post(path, json=body, headers=[*_APP.items(), *sent])
            assert problem(answer) == (400, "invalid_request")
            assert _NAME in answer.json()["detail"]
            assert "set-cookie" not in answer.headers
    assert await service.sql("SELECT id FROM sessions WHERE revoked_at IS NULL") == live


@pytest.mark.parametrize("value", ["", "x" * 8193, "a.b.c", '"quoted"', "%20", "\xff", "=", "null"])
async def test_a_cookie_that_holds_no_token_is_refused_and_can_be_replaced(service: Service, value: str) -> None:
    user = await service.register()
    sent = [*_FROM_APP, (b"Cookie", f"{_NAME}={value}".encode("latin-1"))]
    assert problem(await service.http.post("/user/refresh-token", headers=sent)) == (401, "invalid_token")
    known = {"email": user.email, "password": PASSWORD, "transport": "cookie"}
    answer = await service.http.post("/user/login", json=known, headers=sent)
    assert answer.status_code == 200
    service.http.cookies.clear()
    left = await service.http.post("/user/logout", headers=sent)
    assert left.status_code == 204
    assert "Max-Age=0" in left.headers["set-cookie"]


async def test_spaces_and_other_cookies_around_it_do_no_harm(service: Service) -> None:
    async with service.client() as browser:
        await _sign_in(service, browser)
        token = browser.cookies[_NAME]
    for header in (f"a=b;{_NAME}={token}", f"{_NAME} =\t{token} ;", f"=; x; {_NAME}; {_NAME}={token}; a=b=c"):
        answer = await service.http.post("/user/refresh-token", headers=_APP | {"Cookie": header})
        assert answer.status_code == 200, header
        service.http.cookies.clear()


def _attributes(header: str, *, value: str) -> list[str]:
    """The attributes of a Set-Cookie header, in order of their names; the cookie itself must be ours, with `value`."""
    cookie, *attributes = header.split("; ")
    assert cookie == f"{_NAME}={value}"
    return sorted(attributes)
