"""`BearerMiddleware` and `requires`: the answers of RFC 6750, over HTTP and WebSocket, in process and on a uvicorn."""

import asyncio
import contextlib
import gc
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import httpx2
import pytest
import websockets.exceptions
from starlette.applications import Starlette
from starlette.authentication import requires as starlette_requires
from starlette.background import BackgroundTask
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.sync.client import ClientConnection, connect

from auth_service.verifier import BearerMiddleware, JWTAuthenticationBackend, Verifier, requires
from auth_service.verifier.testing import FakeIssuer
from tests.support.bearer_cases import CASES, Case, Headers, bearer
from tests.support.served_app import ServedApp, served_app

QUICKLY = 0.1
"""Seconds within which a connection ends with its token."""


@requires("orders:read")
async def orders(request: Request) -> Response:
    return JSONResponse({"for": request.user.id, "host": request.headers["host"]})


@requires("orders:read")
def orders_in_a_thread(request: Request) -> Response:
    return JSONResponse({"for": request.user.id})


class Orders(HTTPEndpoint):
    @requires("orders:read")
    async def get(self, request: Request) -> Response:
        return JSONResponse({"for": request.user.id})

    @requires(["orders:read"], "orders:write")
    def post(self, request: Request) -> Response:
        return JSONResponse({"for": request.user.id}, 201)


@starlette_requires("orders:read")
async def starlettes_own(request: Request) -> Response:
    return JSONResponse({"for": request.user.id})


@requires("orders:read", max_staleness=5)
async def fresh(request: Request) -> Response:
    return JSONResponse({"for": request.user.id})


async def public(request: Request) -> Response:
    return JSONResponse({"known": request.user.is_authenticated, "scopes": request.auth.scopes})


@requires()
async def remember(request: Request) -> Response:
    seen = getattr(request.user, "seen", "nothing")
    with pytest.raises(AttributeError, match=r"request\.state"):
        request.user.seen = "this"
    return JSONResponse({"seen": seen})


async def form(request: Request) -> Response:
    await request.body()
    return await orders(request)


@requires("orders:read")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


@requires("orders:read", max_staleness=5)
async def fresh_socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close()


async def chooses(websocket: WebSocket) -> None:
    offered = websocket.scope["subprotocols"]
    await websocket.accept(subprotocol="chat" if "chat" in offered else None)
    await websocket.send_json(offered)
    await websocket.close()


ROUTES = [
    Route("/orders", orders),
    Route("/thread", orders_in_a_thread),
    Route("/endpoint", Orders),
    Route("/own", starlettes_own),
    Route("/fresh", fresh),
    Route("/public", public),
    Route("/remember", remember),
    Route("/form", form, methods=["POST"]),
    Mount("/mounted", routes=[Route("/orders", orders)]),
    Mount("/app", app=Starlette(routes=[Route("/orders", orders), WebSocketRoute("/socket", echo)])),
    WebSocketRoute("/socket", echo),
    WebSocketRoute("/fresh-socket", fresh_socket),
    WebSocketRoute("/chooses", chooses),
]


def behind_bearer_middleware(verifier: Verifier) -> Starlette:
    middleware = [Middleware(BearerMiddleware, verifier=verifier)]
    return Starlette(routes=ROUTES, lifespan=verifier.lifespan, middleware=middleware)


def behind_the_backend(verifier: Verifier) -> Starlette:
    backend = JWTAuthenticationBackend(verifier)
    middleware = [Middleware(AuthenticationMiddleware, backend=backend, on_error=backend.on_error)]
    return Starlette(routes=ROUTES, lifespan=verifier.lifespan, middleware=middleware)


APPS = {"BearerMiddleware": behind_bearer_middleware, "AuthenticationMiddleware": behind_the_backend}


class Running:
    """An application in process and on a server, with the issuer of both."""

    def __init__(self, issuer: FakeIssuer, client: TestClient, served: ServedApp) -> None:
        self.issuer, self.client, self.served = issuer, client, served


@pytest.fixture(scope="module", params=APPS)
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    issuer = FakeIssuer(audience="orders")
    make = APPS[request.param]
    with TestClient(make(issuer.verifier())) as client, served_app(make(issuer.verifier())) as served:
        yield Running(issuer, client, served)
        assert not served.complaints, "\n".join(served.complaints)


@pytest.fixture
def issuer() -> FakeIssuer:
    return FakeIssuer(audience="orders")


@pytest.mark.parametrize("path", ["/orders", "/thread", "/endpoint", "/mounted/orders", "/app/orders"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_http_is_answered_as_the_table_says(running: Running, path: str, case: Case) -> None:
    url = path + case.query(running.issuer)
    headers = case.headers(running.issuer)
    refused(running.client.get(url, headers=httpx2.Headers(headers)), case)
    if path == "/orders":
        # Two headers of one name, and bytes as they are: only a real server shows what comes of them.
        with httpx2.Client(base_url=running.served.url) as client:
            refused(client.get(url, headers=headers), case)


def refused(answer: httpx2.Response, case: Case) -> None:
    assert answer.status_code == case.status, answer.text
    assert answer.headers.get("www-authenticate") == case.challenge
    if case.status == 200:
        assert answer.json()["for"] == "user-1"
    else:
        assert answer.headers["cache-control"] == "no-store"
        assert set(answer.json()) == {"error", "error_description"}


def test_a_method_may_demand_more_than_another(running: Running) -> None:
    headers = dict(bearer(running.issuer, scope="orders:read"))
    assert running.client.get("/endpoint", headers=headers).status_code == 200
    answer = running.client.post("/endpoint", headers=headers)
    assert answer.status_code == 403
    assert 'scope="orders:read orders:write"' in answer.headers["www-authenticate"]
    both = dict(bearer(running.issuer, scope="orders:write orders:read"))
    assert running.client.post("/endpoint", headers=both).status_code == 201


def test_starlettes_own_requires_works_too(running: Running) -> None:
    assert running.client.get("/own", headers=dict(bearer(running.issuer))).json() == {"for": "user-1"}
    for headers in ({}, dict(bearer(running.issuer, scope="orders"))):
        assert running.client.get("/own", headers=headers).status_code == 403


def test_a_form_s_token_is_never_read(running: Running) -> None:
    token = running.issuer.token(scope="orders:read")
    answer = running.client.post("/form", data={"access_token": token})
    assert answer.status_code == 401
    assert "error" not in answer.headers["www-authenticate"]


def test_a_public_route_takes_anybody_but_no_bad_token(running: Running) -> None:
    assert running.client.get("/public").json() == {"known": False, "scopes": []}
    known = running.client.get("/public", headers=dict(bearer(running.issuer, scope="a b"))).json()
    assert known["known"]
    assert set(known["scopes"]) == {"authenticated", "a", "b"}
    assert running.client.get("/public", headers={"Authorization": "Bearer bad"}).status_code == 401


def test_no_request_leaves_anything_on_the_user_for_the_next(running: Running) -> None:
    headers = dict(bearer(running.issuer))
    for _ in range(2):
        assert running.client.get("/remember", headers=headers).json() == {"seen": "nothing"}


def test_starlettes_own_answer_to_a_refused_token_does_not_tell_which_check_failed(issuer: FakeIssuer) -> None:
    verifier = issuer.verifier()
    middleware = [Middleware(AuthenticationMiddleware, backend=JWTAuthenticationBackend(verifier))]
    with TestClient(Starlette(routes=ROUTES, lifespan=verifier.lifespan, middleware=middleware)) as client:
        bodies = set()
        for token in (issuer.token(audience="other"), issuer.token(expires_in=-60), "x.y.z"):
            answer = client.get("/public", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 400
            bodies.add(answer.text)
        assert bodies == {"The access token is expired, revoked or not valid."}


@pytest.mark.parametrize("make", APPS.values(), ids=APPS)
def test_what_cannot_be_decided_is_503_and_never_401(make: Callable[[Verifier], Starlette], issuer: FakeIssuer) -> None:
    with TestClient(make(issuer.verifier())) as client:
        headers = dict(bearer(issuer))
        with issuer.outage():
            issuer.advance(4)
            assert client.get("/fresh", headers=headers).status_code == 200
            issuer.advance(2)
            unavailable(client.get("/fresh", headers=headers))
            assert client.get("/orders", headers=headers).status_code == 200
            # What is wrong with a token, or lacking, is said all the same.
            assert client.get("/fresh").status_code == 401
            assert client.get("/fresh", headers=dict(bearer(issuer, scope=""))).status_code == 403
            issuer.rotate()
            unavailable(client.get("/orders", headers=dict(bearer(issuer))))
            assert client.get("/orders", headers={"Authorization": "Bearer bad"}).status_code == 401
            assert client.get("/public").status_code == 200
            issuer.advance(600)
            unavailable(client.get("/public", headers=dict(bearer(issuer, expires_in=3600))))
        issuer.advance(5)
        assert client.get("/orders", headers=dict(bearer(issuer))).status_code == 200


def unavailable(answer: httpx2.Response) -> None:
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert "www-authenticate" not in answer.headers
    assert answer.json()["error"] == "temporarily_unavailable"


# WebSockets


def handshake(served: ServedApp, path: str, headers: Headers, subprotocols: Any = None) -> tuple[int, Any]:
    """Status and headers of the answer."""
    try:
        with connect(served.socket_url + path, additional_headers=headers, subprotocols=subprotocols) as socket:
            assert socket.response is not None
            return 200, socket.response.headers
    except websockets.exceptions.InvalidStatus as refusal:
        return refusal.response.status_code, refusal.response.headers


@pytest.mark.parametrize("path", ["/socket", "/app/socket"])
@pytest.mark.parametrize("case", [case for case in CASES if "host" not in case.name], ids=str)
def test_a_websocket_is_answered_as_the_table_says(issuer: FakeIssuer, path: str, case: Case, sockets: Running) -> None:
    url, headers = path + case.query(sockets.issuer), case.headers(sockets.issuer)
    status, answered = handshake(sockets.served, url, headers)
    assert status == case.status
    assert answered.get("www-authenticate") == case.challenge
    if case.status == 200:
        with sockets.client.websocket_connect(url, headers=httpx2.Headers(headers)) as socket:
            socket.send_text("hello")
            assert socket.receive_text() == "hello"
    else:
        opening = sockets.client.websocket_connect(url, headers=httpx2.Headers(headers))
        with pytest.raises(WebSocketDenialResponse) as denied, opening:
            pytest.fail("it was accepted")
        assert denied.value.status_code == case.status
        assert denied.value.headers.get("www-authenticate") == case.challenge


@pytest.fixture(scope="module")
def sockets() -> Iterator[Running]:
    issuer = FakeIssuer(audience="orders")
    app = behind_bearer_middleware(issuer.verifier())
    with TestClient(app) as client, served_app(behind_bearer_middleware(issuer.verifier())) as served:
        yield Running(issuer, client, served)
        assert not served.complaints, "\n".join(served.complaints)


@pytest.mark.parametrize("path", ["/socket", "/chooses"])
async def test_a_server_that_can_only_close_closes_before_it_opens(path: str, issuer: FakeIssuer) -> None:
    async with issuer.verifier() as verifier:
        app = behind_bearer_middleware(verifier)
        codes = []
        for headers in ([], [(b"authorization", b"Bearer bad")], [(b"authorization", b"Bearer")]):
            sent = await socket_messages(app, path, headers)
            if sent[0]["type"] != "websocket.accept":
                assert [message["type"] for message in sent] == ["websocket.close"]
                codes.append(sent[0]["code"])
        assert codes == ([1008] * 3 if path == "/socket" else [1008] * 2)
        with issuer.outage():
            issuer.advance(601)
            good = issuer.headers(scope="orders:read")["Authorization"].encode()
            sent = await socket_messages(app, path, [(b"authorization", good)])
            assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1013)]


async def socket_messages(app: Any, path: str, headers: list[tuple[bytes, bytes]]) -> list[Any]:
    """What an application sends to a WebSocket of a server without the denial response of ASGI 2.3."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"} if not sent else {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": path, "headers": headers, "query_string": b"", "subprotocols": []}
    await app(scope, receive, send)
    return sent


def test_a_browser_brings_its_token_as_a_subprotocol(sockets: Running) -> None:
    token = sockets.issuer.token(scope="orders:read")
    for offered, chosen, left in [
        (["bearer", token], "bearer", []),
        (["bearer", token, "chat"], "chat", ["chat"]),
        (["bearer", token, "other"], "bearer", ["other"]),
    ]:
        with connect(sockets.served.socket_url + "/chooses", subprotocols=offered) as socket:  # type: ignore[arg-type]
            assert socket.subprotocol == chosen
            assert str(left).replace("'", '"') == socket.recv()
        with sockets.client.websocket_connect("/chooses", subprotocols=offered) as inside:
            assert inside.accepted_subprotocol == chosen
            assert inside.receive_json() == left


@pytest.mark.parametrize(
    ("offered", "status"),
    [
        (["bearer", "bad"], 401),
        (["bearer"], 400),
        (["chat", "bearer"], 401),
        (["Bearer", "{token}"], 401),
        (["chat", "bearer", "{token}"], 401),
    ],
)
def test_a_subprotocol_that_is_no_good_token_opens_nothing(sockets: Running, offered: list[str], status: int) -> None:
    token = sockets.issuer.token(scope="orders:read")
    offered = [name.format(token=token) for name in offered]
    assert handshake(sockets.served, "/socket", [], offered)[0] == status


@pytest.mark.parametrize("audience", ["orders", ["inner", "orders"]])
def test_a_browser_passes_the_middleware_twice_and_the_application_sees_no_token(
    issuer: FakeIssuer, audience: str | list[str]
) -> None:
    """In front of the application, and in front of one that is mounted in it: of the same verifier, or of another."""
    outer = issuer.verifier()
    inner = outer if audience == "orders" else issuer.verifier(audience=audience)
    mounted = Starlette(
        routes=[WebSocketRoute("/chooses", requires("orders:read")(chooses))],
        middleware=[Middleware(BearerMiddleware, verifier=inner)],
    )
    app = Starlette(
        routes=[Mount("/app", app=mounted)],
        lifespan=outer.lifespan,
        middleware=[Middleware(BearerMiddleware, verifier=outer)],
    )
    token = issuer.token(scope="orders:read")
    with TestClient(app) as client:
        for offered, chosen in ((["bearer", token], "bearer"), (["bearer", token, "chat"], "chat")):
            with client.websocket_connect("/app/chooses", subprotocols=offered) as socket:
                assert socket.accepted_subprotocol == chosen
                assert socket.receive_json() == offered[2:]


def test_a_token_in_the_header_and_one_among_the_subprotocols_is_one_too_many(sockets: Running) -> None:
    token = sockets.issuer.token(scope="orders:read")
    status, headers = handshake(sockets.served, "/socket", bearer(sockets.issuer), ["bearer", token])
    assert status == 400
    assert 'error="invalid_request"' in headers["www-authenticate"]


def test_a_stale_route_refuses_a_websocket_with_503(issuer: FakeIssuer) -> None:
    with served_app(behind_bearer_middleware(issuer.verifier())) as served:
        assert handshake(served, "/fresh-socket", bearer(issuer))[0] == 200
        with issuer.outage():
            issuer.advance(6)
            status, headers = handshake(served, "/fresh-socket", bearer(issuer))
            assert status == 503
            assert int(headers["retry-after"]) >= 1


# Connections that outlive their token


class Handlers:
    """Handlers that deal with their socket in every way, and how many of each are at work."""

    def __init__(self) -> None:
        self.at_work = 0

    def counted(self, app: ASGIApp) -> ASGIApp:
        """Middleware: what is at work behind it is counted."""

        async def counting(scope: Scope, receive: Receive, send: Send) -> None:
            self.at_work += scope["type"] != "lifespan"
            try:
                await app(scope, receive, send)
            finally:
                self.at_work -= scope["type"] != "lifespan"

        return counting

    async def reads(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("open")
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    async def reads_and_lets_fly(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("open")
        while True:
            await websocket.receive_text()

    async def sends(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("open")
        while True:
            await websocket.send_text("tick")
            await asyncio.sleep(0.01)

    async def both(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("open")

        async def tick() -> None:
            while True:
                await asyncio.sleep(0.01)
                await websocket.send_text("tick")

        ticking = asyncio.create_task(tick())
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await websocket.receive_text()
        ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect):
            await ticking

    async def group(self, websocket: WebSocket) -> None:
        """As `both`, in a task group that lets fly what its tasks let fly."""
        await websocket.accept()
        await websocket.send_text("open")

        async def tick() -> None:
            while True:
                await asyncio.sleep(0.01)
                await websocket.send_text("tick")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tick)
            while True:
                await websocket.receive_text()

    async def ignores(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("open")
        await asyncio.sleep(0.5)  # neither reads nor sends; longer than the test waits for the close
        with contextlib.suppress(WebSocketDisconnect):
            await websocket.receive_text()

    async def events(self, request: Request) -> Response:
        return StreamingResponse(self._ticks(0.01), media_type="text/event-stream")

    async def idle_events(self, request: Request) -> Response:
        return StreamingResponse(self._ticks(3600), media_type="text/event-stream; charset=utf-8")

    async def ended_events(self, request: Request) -> Response:
        async def two() -> Any:
            yield "data: 1\n\n"

        async def later() -> None:
            await asyncio.sleep(0.4)

        return StreamingResponse(two(), media_type="text/event-stream", background=BackgroundTask(later))

    async def long_download(self, request: Request) -> Response:
        return StreamingResponse(self._ticks(0.01, 40), media_type="text/plain")

    async def _ticks(self, pause: float, count: int = 10**9) -> Any:
        yield "data: open\n\n"
        for _ in range(count):
            await asyncio.sleep(pause)
            yield "data: tick\n\n"

    async def raw_events(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Only sends, and asks nobody whether there is still a client."""
        head = {"type": "http.response.start", "status": 200, "headers": [(b"Content-Type", b"text/event-stream")]}
        await send(head)
        while True:
            await send({"type": "http.response.body", "body": b"data: open\n\n", "more_body": True})
            await asyncio.sleep(0.01)


class Raw:
    """An ASGI application as a route of Starlette."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


class Lasting:
    """A served application with connections that last."""

    def __init__(self, issuer: FakeIssuer, verifier: Verifier, handlers: Handlers, served: ServedApp) -> None:
        self.issuer, self.verifier, self.handlers, self.served = issuer, verifier, handlers, served

    def until(self, holds: Callable[[], Any], *, seconds: float = 5) -> float:
        """Wait for `holds()`; how long that took."""
        began = time.monotonic()
        while not holds():
            assert time.monotonic() - began < seconds, "it has not come true"
            time.sleep(0.002)
        return time.monotonic() - began

    def nothing_is_left(self) -> None:
        self.until(lambda: not self.handlers.at_work)
        self.until(lambda: not self.verifier.revocations._watchers)
        assert not self.verifier._watches
        gc.collect()  # an exception that nobody has looked at is told when its task goes
        time.sleep(0.02)
        assert not self.served.complaints, "\n".join(self.served.complaints)

    def end(self, how: str, sid: str) -> None:
        if how == "revoked":
            self.issuer.revoke(sid=sid)
        else:
            self.issuer.advance(60)


@pytest.fixture
def lasting(issuer: FakeIssuer) -> Iterator[Lasting]:
    verifier, handlers = issuer.verifier(), Handlers()
    names = ["reads", "reads_and_lets_fly", "sends", "both", "group", "ignores"]
    streams = ["events", "idle_events", "ended_events", "long_download"]
    app = Starlette(
        routes=[
            *[WebSocketRoute(f"/{name}", getattr(handlers, name)) for name in names],
            *[Route(f"/{name}", getattr(handlers, name)) for name in streams],
            Route("/raw_events", Raw(handlers.raw_events)),
        ],
        lifespan=verifier.lifespan,
        middleware=[Middleware(BearerMiddleware, verifier=verifier), Middleware(handlers.counted)],
    )
    with served_app(app) as served:
        yield Lasting(issuer, verifier, handlers, served)


def close_code(socket: ClientConnection, *, seconds: float = 5) -> int | None:
    """Read until the server closes; its code."""
    try:
        while True:
            socket.recv(timeout=seconds)
    except websockets.exceptions.ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None


@pytest.mark.parametrize("how", ["revoked", "expired"])
@pytest.mark.parametrize("handler", ["reads", "reads_and_lets_fly", "sends", "both", "group", "ignores"])
def test_an_open_websocket_ends_with_its_token_and_others_stay(lasting: Lasting, handler: str, how: str) -> None:
    url = f"{lasting.served.socket_url}/{handler}"
    good = bearer(lasting.issuer, sid="good")
    ending = bearer(lasting.issuer, sid="ending", expires_in=50 if how == "expired" else 600)
    with connect(url, additional_headers=ending) as socket, connect(url, additional_headers=good) as other:
        assert socket.recv() == other.recv() == "open"
        began = time.monotonic()
        lasting.end(how, "ending")
        assert close_code(socket) == 1008
        assert time.monotonic() - began < QUICKLY
        if handler != "ignores":
            lasting.until(lambda: lasting.handlers.at_work == 1)
            assert time.monotonic() - began < QUICKLY * 2
        other.ping().wait(5)
        assert other.protocol.close_rcvd is None
        # By its token too: what Starlette makes of a client that leaves is not looked at here.
        lasting.issuer.revoke(sid="good")
        assert close_code(other) == 1008
    lasting.nothing_is_left()


def test_a_client_that_never_answers_the_close_keeps_no_handler(lasting: Lasting) -> None:
    token = lasting.issuer.token(sid="ending")
    with socket.create_connection(("127.0.0.1", lasting.served.port)) as silent:
        silent.sendall(
            b"GET /reads HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Authorization: Bearer " + token.encode() + b"\r\n\r\n"
        )
        lasting.until(lambda: lasting.handlers.at_work == 1)
        lasting.issuer.revoke(sid="ending")
        assert lasting.until(lambda: not lasting.handlers.at_work) < QUICKLY
        lasting.nothing_is_left()


@pytest.mark.parametrize("how", ["revoked", "expired"])
@pytest.mark.parametrize("handler", ["events", "idle_events", "raw_events"])
def test_an_open_event_stream_ends_with_its_token_and_others_stay(lasting: Lasting, handler: str, how: str) -> None:
    good = bearer(lasting.issuer, sid="good")
    ending = bearer(lasting.issuer, sid="ending", expires_in=50 if how == "expired" else 600)
    with (
        httpx2.Client(base_url=lasting.served.url, timeout=5) as client,
        client.stream("GET", f"/{handler}", headers=ending) as answer,
        client.stream("GET", f"/{handler}", headers=good) as other,
    ):
        chunks, others = answer.iter_bytes(), other.iter_bytes()
        assert next(chunks)
        assert next(others)
        began = time.monotonic()
        lasting.end(how, "ending")
        for _ in chunks:  # to its regular end
            pass
        assert time.monotonic() - began < QUICKLY
        lasting.until(lambda: lasting.handlers.at_work == 1)
        assert time.monotonic() - began < QUICKLY * 2
        if handler != "idle_events":
            assert next(others)
        lasting.issuer.revoke(sid="good")
    lasting.nothing_is_left()


def test_what_is_no_event_stream_is_finished(lasting: Lasting) -> None:
    with (
        httpx2.Client(base_url=lasting.served.url, timeout=5) as client,
        client.stream("GET", "/long_download", headers=bearer(lasting.issuer, sid="ending")) as answer,
    ):
        chunks = answer.iter_bytes()
        body = next(chunks)
        lasting.issuer.revoke(sid="ending")
        body += b"".join(chunks)
        assert body.count(b"tick") == 40
    lasting.nothing_is_left()


def test_a_stream_that_has_ended_by_itself_is_not_ended_again(lasting: Lasting) -> None:
    with httpx2.Client(base_url=lasting.served.url, timeout=5) as client:
        answer = client.get("/ended_events", headers=bearer(lasting.issuer, sid="ending"))
        assert answer.text == "data: 1\n\n"
        lasting.until(lambda: lasting.handlers.at_work == 1)  # what it does in the background goes on
        lasting.issuer.revoke(sid="ending")
        time.sleep(0.05)
        assert lasting.handlers.at_work == 1
    lasting.nothing_is_left()


def test_a_websocket_whose_client_has_gone_is_not_closed_again(lasting: Lasting) -> None:
    for number in range(5):
        headers = bearer(lasting.issuer, sid=f"ending-{number}")
        with connect(f"{lasting.served.socket_url}/both", additional_headers=headers):
            pass
        lasting.issuer.revoke(sid=f"ending-{number}")
    lasting.nothing_is_left()


def test_a_token_that_is_revoked_between_its_check_and_the_opening_ends_at_once(lasting: Lasting) -> None:
    sid = "ending"
    with connect(f"{lasting.served.socket_url}/reads", additional_headers=bearer(lasting.issuer, sid=sid)) as socket:
        lasting.issuer.revoke(sid=sid)
        assert close_code(socket) == 1008
    assert handshake(lasting.served, "/reads", bearer(lasting.issuer, sid=sid))[0] == 401
    lasting.nothing_is_left()


# What a developer may get wrong


async def test_a_route_behind_no_middleware_fails_loudly() -> None:
    transport = httpx2.ASGITransport(app=Starlette(routes=[Route("/orders", orders)]))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        with pytest.raises(RuntimeError, match="BearerMiddleware"):
            await client.get("/orders")


async def test_an_answer_keeps_its_header_however_it_is_given(issuer: FakeIssuer) -> None:
    """ASGI allows any iterable, one too that can be read only once."""

    async def once(_scope: Scope, _receive: Receive, send: Send) -> None:
        fields = [(b"x-one", b"1"), (b"content-type", b"text/plain"), (b"set-cookie", b"a=b")]
        await send({"type": "http.response.start", "status": 200, "headers": iter(fields)})
        await send({"type": "http.response.body", "body": b"there"})

    async with issuer.verifier() as verifier:
        transport = httpx2.ASGITransport(app=BearerMiddleware(once, verifier=verifier))
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.get("/", headers={"Authorization": f"Bearer {issuer.token()}"})
    assert (answer.text, answer.headers.get("x-one"), answer.headers.get("set-cookie")) == ("there", "1", "a=b")


def test_requires_refuses_what_it_cannot_guard() -> None:
    with pytest.raises(TypeError, match="HTTPEndpoint"):
        requires("x")(Orders)
    with pytest.raises(TypeError, match=r"write @requires\(\)"):
        requires(form)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_staleness"):
        requires("x", max_staleness=0)

    @requires("x")
    def takes_nothing() -> Response:
        return PlainTextResponse("")

    with pytest.raises(TypeError, match="Request"):
        takes_nothing()
