"""`FakeIssuer`, as a downstream service's tests use it: from other threads and from async code, without a network."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from auth_service.verifier import (
    BearerMiddleware,
    ExpiredToken,
    KeysUnavailable,
    RevocationsUnavailable,
    RevokedToken,
    UnknownKey,
    Verifier,
    requires,
)
from auth_service.verifier.testing import FakeIssuer
from tests.support.scripted_issuer import JWKS, until

ROOT = Path(__file__).parent.parent


@requires("orders:read")
async def orders(request: Request) -> Response:
    return JSONResponse({"for": request.user.username, "session": request.auth.claims.get("sid")})


def application(verifier: Verifier) -> Starlette:
    return Starlette(
        routes=[Route("/orders", orders)],
        lifespan=verifier.lifespan,
        middleware=[Middleware(BearerMiddleware, verifier=verifier)],
    )


@pytest.fixture
def issuer() -> FakeIssuer:
    return FakeIssuer(audience="orders")


@pytest.fixture
def client(issuer: FakeIssuer) -> Iterator[TestClient]:
    with TestClient(application(issuer.verifier())) as client:
        yield client


def status(client: TestClient, issuer: FakeIssuer, **token: Any) -> int:
    return client.get("/orders", headers=issuer.headers(**{"scope": "orders:read", **token})).status_code


def test_the_example_of_its_docstring_holds(client: TestClient, issuer: FakeIssuer) -> None:
    assert client.get("/orders", headers=issuer.headers(scope="orders:read")).status_code == 200


def test_no_socket_is_opened(issuer: FakeIssuer) -> None:
    # In a process of its own, whose every attempt to connect is an error: an event loop's own pair of sockets is not.
    script = """
import socket, sys
def refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind"):
        raise SystemExit(f"{event} {args}")
sys.addaudithook(refuse)
from starlette.testclient import TestClient
from auth_service.verifier.testing import FakeIssuer
from tests.test_fake_issuer import application, status
issuer = FakeIssuer(audience="orders")
with TestClient(application(issuer.verifier())) as client:
    assert status(client, issuer) == 200
    issuer.rotate()
    assert status(client, issuer) == 200
    issuer.revoke(sid="session-1")
    assert status(client, issuer) == 401
    with issuer.outage():
        assert status(client, issuer, sid="other") == 200
print("done")
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.returncode) == ("done\n", 0), ran.stderr


def test_a_token_says_what_it_is_told(client: TestClient, issuer: FakeIssuer) -> None:
    headers = issuer.headers(scope="orders:read", username="ada", sid="s-7")
    assert client.get("/orders", headers=headers).json() == {"for": "ada", "session": "s-7"}
    service = issuer.headers(scope="orders:read", sub="robot", client_id="robot", sid=None)
    assert client.get("/orders", headers=service).json() == {"for": None, "session": None}
    assert status(client, issuer, scope=["more", "orders:read"]) == 200
    assert status(client, issuer, scope=["more"]) == 403
    assert status(client, issuer, audience="invoices") == 401
    assert status(client, issuer, audience=["invoices", "orders"]) == 200
    assert status(client, issuer, iss="https://evil.test") == 401
    assert status(client, issuer, exp=1) == 401
    assert issuer.token() != issuer.token()


@pytest.mark.parametrize("named", [{"sid": "one"}, {"jti": "one"}, {"client_id": "one"}])
def test_what_is_revoked_is_refused_when_revoke_returns(
    client: TestClient, issuer: FakeIssuer, named: dict[str, str]
) -> None:
    for _ in range(2):  # a second time for the cached token
        assert status(client, issuer, **named) == 200
    issuer.revoke(**named)
    assert status(client, issuer, **named) == 401
    assert status(client, issuer, **dict.fromkeys(named, "two")) == 200


def test_a_revoked_key_is_replaced(client: TestClient, issuer: FakeIssuer) -> None:
    headers, kid = issuer.headers(scope="orders:read"), issuer.kid
    assert client.get("/orders", headers=headers).status_code == 200
    issuer.revoke(kid=kid)
    assert issuer.kid != kid
    assert client.get("/orders", headers=headers).status_code == 401
    assert status(client, issuer) == 200


def test_revoke_must_be_told_what(issuer: FakeIssuer) -> None:
    with pytest.raises(TypeError, match="sid"):
        issuer.revoke()


def test_rotated_keys_are_taken_at_once_and_the_old_ones_stay(client: TestClient, issuer: FakeIssuer) -> None:
    old = issuer.headers(scope="orders:read")
    for _ in range(3):
        issuer.rotate()
        assert status(client, issuer) == 200
        assert client.get("/orders", headers=old).status_code == 200


def test_a_key_that_nobody_has_stops_no_rotation(client: TestClient, issuer: FakeIssuer) -> None:
    stranger = FakeIssuer(issuer.issuer, audience="orders")
    assert status(client, stranger) == 401
    issuer.rotate()
    assert status(client, issuer) == 200


def test_a_removed_key_is_refused_once_the_keys_are_asked_for(client: TestClient, issuer: FakeIssuer) -> None:
    old, kid = issuer.headers(scope="orders:read"), issuer.kid
    assert client.get("/orders", headers=old).status_code == 200
    issuer.rotate()
    issuer.remove(kid)
    assert status(client, issuer) == 200
    assert client.get("/orders", headers=old).status_code == 401


def test_tokens_expire_when_time_passes(client: TestClient, issuer: FakeIssuer) -> None:
    headers = issuer.headers(scope="orders:read", expires_in=60)
    assert client.get("/orders", headers=headers).status_code == 200
    issuer.advance(59)
    assert client.get("/orders", headers=headers).status_code == 200
    issuer.advance(10)
    assert client.get("/orders", headers=headers).status_code == 401
    issuer.advance(10**6)
    assert status(client, issuer) == 200


def test_an_outage_lets_known_things_work_for_as_long_as_the_verifier_allows(
    client: TestClient, issuer: FakeIssuer
) -> None:
    with issuer.outage():
        asked = len(issuer.requests)
        assert status(client, issuer) == 200
        issuer.revoke(sid="session-1")
        assert status(client, issuer) == 200  # it cannot be told
        issuer.advance(601)
        assert status(client, issuer) == 503
        assert len(issuer.requests) == asked
    assert status(client, issuer) == 401
    assert status(client, issuer, sid="other") == 200


def test_an_outage_can_be_ended_by_hand(client: TestClient, issuer: FakeIssuer) -> None:
    outage = issuer.outage()
    issuer.advance(601)
    assert status(client, issuer) == 503
    outage.end()
    assert status(client, issuer) == 200


async def test_an_outage_may_be_a_block_of_async_code(issuer: FakeIssuer) -> None:
    async with issuer.verifier(max_staleness=5) as verifier:
        async with issuer.outage():
            issuer.advance(6)
            with pytest.raises(RevocationsUnavailable):
                await verifier.verify(issuer.token())
        await verifier.verify(issuer.token())


def test_a_service_that_starts_in_an_outage_works_when_it_ends(issuer: FakeIssuer) -> None:
    outage = issuer.outage()
    with TestClient(application(issuer.verifier())) as client:
        assert status(client, issuer) == 503
        outage.end()
        assert status(client, issuer) == 200


async def test_an_async_client_sees_the_same(issuer: FakeIssuer) -> None:
    verifier = issuer.verifier()
    transport = httpx2.ASGITransport(app=application(verifier))
    async with verifier, httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
        headers = issuer.headers(scope="orders:read")
        assert (await http.get("/orders", headers=headers)).status_code == 200
        issuer.revoke(sid="session-1")
        assert (await http.get("/orders", headers=headers)).status_code == 401


async def test_the_verifier_of_a_fake_issuer_is_the_real_one(issuer: FakeIssuer) -> None:
    async with issuer.verifier(max_staleness=5) as verifier:
        assert (await verifier.verify(issuer.token(scope="a b"))).scope == {"a", "b"}
        with pytest.raises(ExpiredToken):
            await verifier.verify(issuer.token(expires_in=-60))
        issuer.revoke(jti="x")
        with pytest.raises(RevokedToken):
            await verifier.verify(issuer.token(jti="x"))
        with pytest.raises(UnknownKey):
            await verifier.verify(FakeIssuer(issuer.issuer, audience="orders").token())
        with issuer.outage():
            issuer.advance(6)
            with pytest.raises(RevocationsUnavailable):
                await verifier.verify(issuer.token())
            issuer.rotate()
            with pytest.raises(KeysUnavailable):
                await verifier.verify(issuer.token())


async def test_a_beat_that_was_under_way_when_the_issuer_went_away_is_lost(
    issuer: FakeIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    async with issuer.verifier() as verifier:
        time.sleep(1.1)  # noqa: ASYNC251 the event loop held up, until a beat is due
        with issuer.outage():
            issuer.advance(7)
            await until(lambda: "the revocation feed was lost" in caplog.text)
            assert verifier.staleness == 7


async def test_several_verifiers_hear_one_issuer(issuer: FakeIssuer) -> None:
    async with issuer.verifier() as one, issuer.verifier(audience=["orders", "more"]) as two:
        token = issuer.token()
        issuer.revoke(sid="session-1")
        for verifier in (one, two):
            with pytest.raises(RevokedToken):
                await verifier.verify(token)


async def test_an_issuer_takes_over_a_verifier_that_was_made_elsewhere() -> None:
    verifier = Verifier("https://auth.example.com", audience="orders")
    issuer = FakeIssuer.of(verifier)
    async with verifier:
        assert (await verifier.verify(issuer.token())).issuer == "https://auth.example.com"
        issuer.revoke(sid="session-1")
        with pytest.raises(RevokedToken):
            await verifier.verify(issuer.token())
        with pytest.raises(RuntimeError, match="open"):
            FakeIssuer.of(verifier)


async def test_the_next_test_s_issuer_knows_nothing_of_the_last_one_s_revocations() -> None:
    verifier = Verifier("https://auth.example.com", audience="orders")
    for _ in range(2):
        issuer = FakeIssuer.of(verifier)
        async with verifier:
            await verifier.verify(issuer.token())
            issuer.revoke(sid="session-1")
            with pytest.raises(RevokedToken):
                await verifier.verify(issuer.token())


def test_one_verifier_serves_event_loops_one_after_the_other(issuer: FakeIssuer) -> None:
    verifier = issuer.verifier()

    async def serve(*, opened: bool) -> None:
        if opened:
            async with verifier:
                await verifier.verify(issuer.token())
        else:
            await verifier.verify(issuer.token())

    for opened in (True, True, False, False, True):
        asyncio.run(serve(opened=opened))


def test_a_loop_that_was_dropped_takes_nothing_from_the_next(issuer: FakeIssuer) -> None:
    verifier = issuer.verifier()
    dropped = asyncio.new_event_loop()
    dropped.run_until_complete(verifier.verify(issuer.token()))

    async def serve() -> None:
        await verifier.verify(issuer.token())
        # What a loop does when nobody has ended its tasks: they end while another loop runs.
        for task in asyncio.all_tasks(dropped):
            task.get_coro().close()
        issuer.rotate()
        await verifier.verify(issuer.token())

    try:
        asyncio.run(serve())
    finally:
        for task in asyncio.all_tasks(dropped):
            task.cancel()
        dropped.run_until_complete(asyncio.sleep(0.01))
        dropped.close()


def test_a_client_without_a_lifespan_works_too(issuer: FakeIssuer) -> None:
    client = TestClient(application(issuer.verifier()))
    for _ in range(3):
        assert status(client, issuer) == 200
    issuer.revoke(sid="session-1")
    assert status(client, issuer) == 401


async def test_what_was_asked_for_is_told(issuer: FakeIssuer) -> None:
    async with issuer.verifier():
        await until(lambda: len(issuer.requests) >= 3)
        assert issuer.requests.count(JWKS) == 1
        assert socket.gethostname() not in issuer.requests


def test_code_of_a_downstream_service_type_checks() -> None:
    example = ROOT / "tests" / "data" / "downstream_service.py"
    arguments = ["--strict", "--no-incremental", "--config-file=", str(example)]
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stdout
