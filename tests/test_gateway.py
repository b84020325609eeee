"""The gateway example without a browser: its routes, its WebSocket, forward authentication, the files of its page."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import unquote

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from gateway_example.forward_auth import _header_value
from tests.support.command import command
from tests.support.gateway import Services, serving, until
from tests.support.stores import Stores

_IDENTITY = ("X-Auth-Subject", "X-Auth-Username", "X-Auth-Scope", "X-Auth-Session", "X-Auth-Client")


@pytest.fixture(scope="module")
def services(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    database = stores.new_database()
    with serving(
        lambda **changes: stores.settings(database_url=database, **changes), tmp_path_factory.mktemp("gateway")
    ) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(services: Services) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=services.gateway) as client:
        yield client


def test_the_public_route_answers_everybody_and_knows_who_is_signed_in(
    services: Services, gateway: httpx2.Client
) -> None:
    user = services.register()
    assert gateway.get("/api/public").json() == {"hello": "stranger"}
    assert gateway.get("/api/public", headers=user.bearer).json() == {"hello": user.username}


def test_a_protected_route_asks_for_a_token_and_then_says_whose_it_is(
    services: Services, gateway: httpx2.Client
) -> None:
    anonymous = gateway.get("/api/me")
    assert anonymous.status_code == 401
    assert "error=" not in anonymous.headers["www-authenticate"]
    user = services.register()
    answer = gateway.get("/api/me", headers=user.bearer).json()
    assert answer["user"] == {"id": user.id, "username": user.username}
    assert answer["scopes"] == ["profile"]
    sessions = httpx2.get(f"{services.issuer}/user/sessions", headers=user.bearer).json()
    assert answer["session"] == sessions[0]["id"]
    broken = gateway.get("/api/me", headers={"Authorization": "Bearer nonsense"})
    assert broken.status_code == 401
    assert 'error="invalid_token"' in broken.headers["www-authenticate"]


def test_a_scoped_route_says_which_scope_it_needs_and_opens_once_it_is_granted(
    services: Services, gateway: httpx2.Client
) -> None:
    user = services.register()
    refused = gateway.get("/api/reports", headers=user.bearer)
    assert refused.status_code == 403
    assert 'scope="reports:read"' in refused.headers["www-authenticate"]
    assert command("users", "grant", user.username, "reports:read", settings=services.settings).code == 0
    assert gateway.get("/api/reports", headers=services.login(user).bearer).status_code == 200


def test_a_revoked_token_is_refused_at_once(services: Services, gateway: httpx2.Client) -> None:
    user = services.register()
    assert gateway.get("/api/me", headers=user.bearer).status_code == 200
    services.logout(user)
    took = until(lambda: gateway.get("/api/me", headers=user.bearer).status_code == 401)
    assert took < 1
    assert gateway.get("/verify", headers=user.bearer).status_code == 401


def _live(services: Services, access_token: str) -> ClientConnection:
    address = services.gateway.replace("http", "ws") + "/api/live"
    return connect(address, subprotocols=["bearer", access_token])  # type: ignore[list-item]


def _receive(websocket: ClientConnection, count: int) -> None:
    for _ in range(count):
        websocket.recv(1)


def test_the_live_connection_ticks_and_is_closed_when_its_session_is_revoked(services: Services) -> None:
    user = services.register()
    with _live(services, user.access_token) as websocket:
        assert websocket.subprotocol == "bearer"
        assert json.loads(websocket.recv(5))["tick"] == 1
        services.logout(user)
        with pytest.raises(ConnectionClosed) as closed:
            _receive(websocket, 2)  # a tick that was under way, at most
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008


def test_a_live_connection_without_a_good_token_is_refused_before_it_opens(services: Services) -> None:
    with pytest.raises(InvalidStatus) as refused:
        _live(services, "nonsense")
    assert refused.value.response.status_code == 401
    with pytest.raises(InvalidStatus) as refused:
        connect(services.gateway.replace("http", "ws") + "/api/live")
    assert refused.value.response.status_code == 401


def test_forward_auth_names_the_user_in_headers(services: Services, gateway: httpx2.Client) -> None:
    name = "Zoë ☃ 100%"
    user = services.register(username=name)
    # What a visitor sends in such a header is no answer.
    answer = gateway.get("/verify", headers={**user.bearer, "X-Auth-Subject": "somebody else"})
    assert answer.status_code == 200
    assert answer.headers["x-auth-subject"] == user.id
    assert answer.headers["x-auth-username"] == "Zo%C3%AB %E2%98%83 100%25"
    assert unquote(answer.headers["x-auth-username"]) == name
    assert answer.headers["x-auth-scope"] == "profile"
    assert answer.headers["x-auth-client"] == "web"
    assert answer.headers["x-auth-session"] == gateway.get("/api/me", headers=user.bearer).json()["session"]
    assert answer.headers["cache-control"] == "no-store"


def test_forward_auth_refuses_what_the_verifier_refuses(services: Services, gateway: httpx2.Client) -> None:
    user = services.register()
    assert gateway.get("/verify").status_code == 401
    assert gateway.get("/verify?scope=profile").status_code == 401
    assert gateway.get("/verify?scope=profile", headers=user.bearer).status_code == 200
    refused = gateway.get("/verify?scope=profile+reports:read", headers=user.bearer)
    assert refused.status_code == 403
    assert 'scope="profile reports:read"' in refused.headers["www-authenticate"]
    assert not any(name in refused.headers for name in _IDENTITY)
    for scope in ("a%0d%0aX-Auth-Subject:%20root", "a%22b", "%20a", "zo%C3%AB"):
        assert gateway.get(f"/verify?scope={scope}", headers=user.bearer).status_code == 400


@pytest.mark.parametrize("query", ["scopes=profile", "Scope=profile", "scope=profile&x=1", "x", "x;scope=profile", "="])
def test_forward_auth_refuses_a_question_that_it_does_not_understand(
    services: Services, gateway: httpx2.Client, query: str
) -> None:
    bearer = services.register().bearer
    assert gateway.get(f"/verify?{query}", headers=bearer).status_code == 400
    # Behind a path it is the visitor's own, and is not read.
    assert gateway.get(f"/verify/orders?{query}", headers=bearer).status_code == 200


@pytest.mark.parametrize("hostile", ["a\r\nX-Auth-Scope: admin", "a\0b", "\x7f", "a\u2028b", "é", "\u200b", "%0d%0a"])
def test_no_name_can_break_out_of_its_header(hostile: str) -> None:
    value = _header_value(hostile)
    assert value.isascii()
    assert value.isprintable()
    assert unquote(value) == hostile


def test_the_page_and_its_files_are_cached_by_etag_under_a_strict_policy(gateway: httpx2.Client) -> None:
    page = gateway.get("/")
    names = set(page.text.split('"')) & {f"/static/{name}" for name in ("app.js", "style.css", "icon.svg")}
    assert len(names) == 3
    for path in ("/", "/static/auth-client.js", *sorted(names)):
        answer = gateway.get(path)
        assert answer.headers["cache-control"] == "no-cache"
        again = gateway.get(path, headers={"If-None-Match": f'"other", W/{answer.headers["etag"]}'})
        assert (again.status_code, again.content) == (304, b"")
        assert gateway.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    assert "<style" not in page.text
    assert " style=" not in page.text
    assert page.text.count("<script") == 1


def test_every_answer_carries_the_policy(services: Services, gateway: httpx2.Client) -> None:
    for path in ("/", "/static/app.js", "/api/public", "/api/me", "/verify", "/nothing", "/healthz"):
        headers = gateway.get(path).headers
        policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
        assert policy == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "img-src": "'self'",
            "connect-src": f"'self' {services.issuer}",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
            "require-trusted-types-for": "'script'",
            "trusted-types": "'none'",
        }
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "cache-control" in headers


@pytest.mark.parametrize(
    "path", ["/static/", "/static/../app.py", "/static/%2e%2e/app.py", "/static/app.py", "/static//etc/passwd"]
)
def test_nothing_but_the_files_of_the_page_is_served(gateway: httpx2.Client, path: str) -> None:
    assert gateway.get(path).status_code == 404


def test_a_sensitive_route_stops_while_the_issuer_is_not_heard_and_the_others_go_on(
    services: Services, gateway: httpx2.Client
) -> None:
    user = services.register()
    assert gateway.post("/api/transfers", headers=user.bearer).status_code == 200
    services.issuer_process.send_signal(signal.SIGSTOP)
    try:
        until(lambda: gateway.post("/api/transfers", headers=user.bearer).status_code == 503, seconds=15)
        refused = gateway.post("/api/transfers", headers=user.bearer)
        assert int(refused.headers["retry-after"]) >= 1
        assert gateway.get("/api/me", headers=user.bearer).status_code == 200
    finally:
        services.issuer_process.send_signal(signal.SIGCONT)
    until(lambda: gateway.post("/api/transfers", headers=user.bearer).status_code == 200, seconds=15)


@pytest.mark.parametrize("missing", ["AUTH_ISSUER", "AUTH_AUDIENCE"])
def test_a_missing_setting_is_named_at_the_start(missing: str) -> None:
    given = {"AUTH_ISSUER": "http://127.0.0.1:1", "AUTH_AUDIENCE": "http://127.0.0.1:1", "PATH": ""}
    given.pop(missing)
    done = subprocess.run(
        [sys.executable, "-m", "gateway_example"], env=given, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert missing in done.stderr
    assert "Traceback" not in done.stderr
