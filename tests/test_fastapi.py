"""FastAPI: the bearer as a dependency, alone and behind the middleware, with scopes, in OpenAPI and for WebSockets."""

from collections.abc import Callable, Iterator
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI, Request, Security, WebSocket
from fastapi.testclient import TestClient
from starlette.middleware import Middleware
from starlette.testclient import WebSocketDenialResponse
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from auth_service.verifier import BearerMiddleware, JWTUser, Verifier, requires
from auth_service.verifier.fastapi import Bearer
from auth_service.verifier.testing import FakeIssuer
from tests.support.bearer_cases import CASES, Case, bearer
from tests.support.served_app import served_app


def application(verifier: Verifier, **options: Any) -> FastAPI:
    app = FastAPI(lifespan=verifier.lifespan, **options)
    plain, recent = Bearer(verifier), Bearer(verifier, max_staleness=5)

    @app.get("/orders")
    async def orders(user: Annotated[JWTUser, Security(plain, scopes=["orders:read"])]) -> dict[str, str]:
        return {"for": user.id}

    @app.get("/thread")
    def thread(user: Annotated[JWTUser, Security(plain, scopes=["orders:read"])]) -> dict[str, str]:
        return {"for": user.id}

    @app.get("/fresh")
    async def fresh(user: Annotated[JWTUser, Security(recent, scopes=["orders:read"])]) -> dict[str, str]:
        return {"for": user.id}

    @app.get("/me")
    async def me(request: Request, user: Annotated[JWTUser, Depends(plain)]) -> dict[str, Any]:
        return {"for": user.id, "same": request.user == user, "sid": request.auth.claims["sid"]}

    def needs_write(user: Annotated[JWTUser, Security(plain, scopes=["orders:write"])]) -> JWTUser:
        return user

    @app.get("/nested")
    async def nested(user: Annotated[JWTUser, Security(needs_write, scopes=["orders:read"])]) -> dict[str, str]:
        return {"for": user.id}

    @app.websocket("/socket")
    async def socket(websocket: WebSocket, user: Annotated[JWTUser, Security(plain, scopes=["orders:read"])]) -> None:
        await websocket.accept()
        await websocket.send_text(user.id)
        await websocket.close()

    return app


def behind_the_middleware(verifier: Verifier) -> FastAPI:
    return application(verifier, middleware=[Middleware(BearerMiddleware, verifier=verifier)])


APPS: dict[str, Callable[[Verifier], FastAPI]] = {"alone": application, "behind": behind_the_middleware}


@pytest.fixture(scope="module")
def issuer() -> FakeIssuer:
    return FakeIssuer(audience="orders")


@pytest.fixture(scope="module", params=APPS)
def client(request: pytest.FixtureRequest, issuer: FakeIssuer) -> Iterator[TestClient]:
    with TestClient(APPS[request.param](issuer.verifier())) as client:
        yield client


@pytest.mark.parametrize("path", ["/orders", "/thread", "/fresh"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_http_is_answered_as_the_table_says(client: TestClient, issuer: FakeIssuer, path: str, case: Case) -> None:
    answer = client.get(path + case.query(issuer), headers=httpx2.Headers(case.headers(issuer)))
    assert answer.status_code == case.status
    assert answer.headers.get("www-authenticate") == case.challenge
    if case.status == 200:
        assert answer.json() == {"for": "user-1"}
    else:
        assert answer.headers["cache-control"] == "no-store"


def test_a_dependency_without_scopes_demands_a_good_token(client: TestClient, issuer: FakeIssuer) -> None:
    assert client.get("/me").status_code == 401
    answer = client.get("/me", headers=dict(bearer(issuer, scope="", sid="s-7")))
    assert answer.json() == {"for": "user-1", "same": True, "sid": "s-7"}


def test_scopes_of_nested_dependencies_add_up(client: TestClient, issuer: FakeIssuer) -> None:
    assert client.get("/nested", headers=dict(bearer(issuer))).status_code == 200
    for scope in ("orders:read", "orders:write"):
        answer = client.get("/nested", headers=dict(bearer(issuer, scope=scope)))
        assert answer.status_code == 403
        assert 'scope="orders:read orders:write"' in answer.headers["www-authenticate"]


def test_a_websocket_takes_a_good_token_and_no_other(client: TestClient, issuer: FakeIssuer) -> None:
    with client.websocket_connect("/socket", headers=dict(bearer(issuer))) as socket:
        assert socket.receive_text() == "user-1"
    for headers in ({}, dict(bearer(issuer, scope="")), {"Authorization": "Bearer bad"}):
        opening = client.websocket_connect("/socket", headers=headers)
        with pytest.raises(WebSocketDenialResponse), opening:
            pytest.fail("it was accepted")


@pytest.mark.parametrize("case", [case for case in CASES if "host" not in case.name], ids=str)
def test_a_websocket_is_answered_as_the_table_says(client: TestClient, issuer: FakeIssuer, case: Case) -> None:
    opening = client.websocket_connect("/socket" + case.query(issuer), headers=httpx2.Headers(case.headers(issuer)))
    if case.status == 200:
        with opening as socket:
            assert socket.receive_text() == "user-1"
    else:
        with pytest.raises(WebSocketDenialResponse) as refused, opening:
            pytest.fail("it was accepted")
        assert refused.value.status_code == case.status
        assert refused.value.headers.get("www-authenticate") == case.challenge


@pytest.mark.parametrize("make", APPS.values(), ids=APPS)
def test_a_websocket_that_cannot_be_decided_on_is_answered_503(make: Callable[[Verifier], FastAPI]) -> None:
    issuer = FakeIssuer(audience="orders")
    with served_app(make(issuer.verifier())) as served, issuer.outage():
        issuer.advance(601)
        headers = issuer.headers(scope="orders:read")
        with pytest.raises(InvalidStatus) as refused:
            connect(f"{served.socket_url}/socket", additional_headers=headers)
        assert refused.value.response.status_code == 503
        assert int(refused.value.response.headers["retry-after"]) >= 1
        assert not served.complaints


async def test_a_server_that_can_only_close_closes_before_it_opens() -> None:
    issuer = FakeIssuer(audience="orders")
    async with issuer.verifier() as verifier:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "websocket", "path": "/socket", "headers": [], "query_string": b"", "subprotocols": []}
        await application(verifier)(scope, receive, send)
        assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]


@pytest.mark.parametrize("make", APPS.values(), ids=APPS)
def test_what_cannot_be_decided_is_503(make: Callable[[Verifier], FastAPI]) -> None:
    issuer = FakeIssuer(audience="orders")
    with TestClient(make(issuer.verifier())) as client:
        headers = dict(bearer(issuer))
        with issuer.outage():
            issuer.advance(6)
            assert client.get("/orders", headers=headers).status_code == 200
            answer = client.get("/fresh", headers=headers)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert "www-authenticate" not in answer.headers
            issuer.rotate()
            assert client.get("/orders", headers=dict(bearer(issuer))).status_code == 503
        assert client.get("/fresh", headers=headers).status_code == 200


def test_the_openapi_document_names_the_scheme_and_the_routes_that_need_it(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"] == {
        "Bearer": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "An access token of https://issuer.test",
        }
    }
    for path in ("/orders", "/thread", "/fresh", "/me", "/nested"):
        [security] = document["paths"][path]["get"]["security"]
        assert list(security) == ["Bearer"]


def test_a_dependency_of_another_audience_is_not_satisfied_by_what_the_middleware_found_good() -> None:
    issuer = FakeIssuer(audience="orders")
    everybody, admins = issuer.verifier(), issuer.verifier(audience="admin")
    app = FastAPI(lifespan=everybody.lifespan, middleware=[Middleware(BearerMiddleware, verifier=everybody)])

    @app.get("/admin")
    async def admin(user: Annotated[JWTUser, Depends(Bearer(admins))]) -> dict[str, str]:
        return {"for": user.id}

    with TestClient(app) as client:
        assert client.get("/admin", headers=issuer.headers()).status_code == 401
        assert client.get("/admin", headers=issuer.headers(audience=["orders", "admin"])).status_code == 200
        assert client.get("/admin", headers=issuer.headers(audience="admin")).status_code == 401


def test_a_dependency_of_another_audience_finds_the_token_that_a_browser_offered() -> None:
    issuer = FakeIssuer(audience="orders")
    everybody, admins = issuer.verifier(), issuer.verifier(audience="admin")
    app = FastAPI(lifespan=everybody.lifespan, middleware=[Middleware(BearerMiddleware, verifier=everybody)])

    @app.websocket("/admin")
    async def admin(websocket: WebSocket, user: Annotated[JWTUser, Depends(Bearer(admins))]) -> None:
        await websocket.accept()
        await websocket.send_json([user.id, websocket.scope["subprotocols"]])

    with TestClient(app) as client:
        offered = ["bearer", issuer.token(audience=["orders", "admin"])]
        with client.websocket_connect("/admin", subprotocols=offered) as socket:
            assert socket.receive_json() == ["user-1", []]
        opening = client.websocket_connect("/admin", subprotocols=["bearer", issuer.token(audience="orders")])
        with pytest.raises(WebSocketDenialResponse) as refused, opening:
            pytest.fail("it was accepted")
        assert refused.value.status_code == 401


def test_requires_guards_endpoints_of_fastapi_too() -> None:
    issuer = FakeIssuer(audience="orders")
    verifier = issuer.verifier()
    app = FastAPI(lifespan=verifier.lifespan, middleware=[Middleware(BearerMiddleware, verifier=verifier)])

    @app.get("/async/{number}")
    @requires("orders:read")
    async def in_the_loop(request: Request, number: int) -> dict[str, int]:
        return {"number": number}

    @app.get("/sync/{number}")
    @requires("orders:read")
    def in_a_thread(number: int, request: Request) -> dict[str, int]:
        return {"number": number}

    with TestClient(app) as client:
        for path in ("/async/7", "/sync/7"):
            assert client.get(path, headers=dict(bearer(issuer))).json() == {"number": 7}
            assert client.get(path).status_code == 401
            assert client.get(path, headers=dict(bearer(issuer, scope=""))).status_code == 403


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_a_limit_that_is_no_time_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="max_staleness"):
        Bearer(FakeIssuer().verifier(), max_staleness=limit)


def test_a_real_server_answers_the_same() -> None:
    issuer = FakeIssuer(audience="orders")
    with served_app(application(issuer.verifier())) as served, httpx2.Client(base_url=served.url) as http:
        for case in CASES:
            answer = http.get("/orders" + case.query(issuer), headers=case.headers(issuer))
            assert (case.name, answer.status_code) == (case.name, case.status)
            assert answer.headers.get("www-authenticate") == case.challenge
        assert not served.complaints
