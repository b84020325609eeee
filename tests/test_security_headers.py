"""The security headers: on every answer of both ports, whatever was asked and however it was refused."""

import httpx2

from tests.support.operations import operations
from tests.support.service import Service, Start

_OWN_POLICY = frozenset({"/docs"})  # a page has one of its own, with the same frame-ancestors
_MAY_BE_KEPT = ("/.well-known/", "/docs/", "/revocations")
_ASSETS = ("/docs/swagger-ui.js", "/docs/swagger-ui.css", "/docs/page.js", "/docs/page.css")


def _check(answer: httpx2.Response, about: object, *, secure: bool = True) -> None:
    headers = answer.headers
    path = answer.request.url.path
    for name in ("x-content-type-options", "cache-control", "content-security-policy", "referrer-policy"):
        assert len(headers.get_list(name)) == 1, (about, name)
    assert headers["x-content-type-options"] == "nosniff", about
    assert headers["referrer-policy"] == "no-referrer", about
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; "), about
    assert "frame-ancestors 'none'" in policy, about
    assert policy == "default-src 'none'; frame-ancestors 'none'" or path in _OWN_POLICY, about
    if answer.status_code not in (200, 304) or not path.startswith(_MAY_BE_KEPT):
        assert headers["cache-control"] == "no-store", about
    wanted = "max-age=31536000; includeSubDomains" if secure else None
    assert headers.get("strict-transport-security") == wanted, about
    assert headers["x-request-id"], about


async def test_every_operation_answers_with_them_however_it_is_asked(service: Service) -> None:
    user = await service.register()
    seen: set[int] = set()
    for port, method, path in await operations(service):
        http = service.http if port == "public" else service.internal
        requests: list[tuple[str, str, dict[str, str], bytes]] = [
            (method, path, {}, b""),
            (method, path, user.bearer, b""),
            (method, path, {"Authorization": "Bearer x", "Content-Type": "application/json"}, b"{"),
            (method, path, {**user.bearer, "Content-Type": "application/json"}, b" " * 20_000),
            (method, path, {**user.bearer, "Content-Type": "text/plain"}, b"x"),
            (method, path, {"Cookie": "__Host-refresh_token=x", "Content-Type": "application/json"}, b"{}"),
            (method, f"{path}?nonsense=1", user.bearer, b""),
            ("PUT", path, {}, b""),
            ("HEAD", path, {}, b""),
            (method, f"{path}/nowhere", {}, b""),
            ("OPTIONS", path, {"Origin": "https://app.test", "Access-Control-Request-Method": method}, b""),
            ("OPTIONS", path, {"Origin": "https://evil.test", "Access-Control-Request-Method": method}, b""),
        ]
        for asked, address, headers, content in requests:
            if path == "/user/sessions" and asked == "DELETE" and headers == user.bearer:
                continue  # it would sign out the user that the others need
            if path == "/user/logout" and headers.items() >= user.bearer.items():
                continue
            answer = await http.request(asked, address, headers=headers, content=content)
            _check(answer, (port, asked, address, headers, answer.status_code))
            assert answer.status_code < 500 or path in ("/readyz", "/startupz"), (asked, address)
            seen.add(answer.status_code)
    assert {200, 204, 400, 401, 403, 404, 405, 413, 415} <= seen
    for path in _ASSETS:
        _check(await service.http.get(path), path)


async def test_a_refusal_for_want_of_a_store_has_them_too(service: Service) -> None:
    await service.sql("ALTER TABLE users RENAME TO gone")
    try:
        answer = await service.http.post("/user/login", json={"username": "ada", "password": "x" * 12})
        assert answer.status_code == 503
        _check(answer, "unavailable")
    finally:
        await service.sql("ALTER TABLE gone RENAME TO users")


async def test_browsers_are_told_to_keep_to_https_only_behind_it(start: Start) -> None:
    plain = await start(issuer="http://127.0.0.1:8000")
    for http in (plain.http, plain.internal):
        for path in ("/openapi.json", "/nowhere"):
            _check(await http.get(path), path, secure=False)
