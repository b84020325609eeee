"""One verifier and several event loops: one after the other, in turns, and at the same time."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from auth_service.verifier import BearerMiddleware, KeysUnavailable, RevokedToken, Verifier, requires
from auth_service.verifier.testing import FakeIssuer
from tests.support.scripted_issuer import scripted_issuer


@requires("orders:read")
async def orders(request: Request) -> Response:
    return JSONResponse({"for": request.user.id})


def application(verifier: Verifier) -> Starlette:
    return Starlette(
        routes=[Route("/orders", orders)],
        lifespan=verifier.lifespan,
        middleware=[Middleware(BearerMiddleware, verifier=verifier)],
    )


@pytest.fixture
def issuer() -> FakeIssuer:
    return FakeIssuer(audience="orders")


def status(client: TestClient, issuer: FakeIssuer, **token: Any) -> int:
    return client.get("/orders", headers=issuer.headers(**{"scope": "orders:read", **token})).status_code


@contextmanager
def new_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    try:
        yield loop
    finally:
        loop.close()


def left_in(loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
    """The tasks that are there once what was asked of the loop meanwhile has been done."""
    running = loop.create_task(asyncio.sleep(0.1))
    loop.run_until_complete(running)
    return asyncio.all_tasks(loop)


def test_each_test_may_take_a_verifier_over_though_its_client_closed_nothing() -> None:
    verifier = Verifier("https://auth.example.com", audience="orders")
    app = application(verifier)
    for _ in range(3):
        issuer = FakeIssuer.of(verifier)
        assert status(TestClient(app), issuer) == 200
        issuer.revoke(sid="session-1")
        assert status(TestClient(app), issuer) == 401


def test_a_verifier_that_another_loop_used_meanwhile_closes_and_leaves_nothing(issuer: FakeIssuer) -> None:
    """As a fixture of a whole session and tests with a loop of their own use it."""
    verifier = issuer.verifier()
    with new_loop() as session:
        session.run_until_complete(verifier.open())
        for _ in range(2):
            asyncio.run(verifier.verify(issuer.token()))
        session.run_until_complete(verifier.verify(issuer.token()))
        session.run_until_complete(verifier.close())
        assert not asyncio.all_tasks(session)
        assert not issuer._streams
        session.run_until_complete(verifier.open())
        asyncio.run(verifier.verify(issuer.token()))
        session.run_until_complete(verifier.close())
        assert not asyncio.all_tasks(session)
        assert not issuer._streams


def test_loops_that_take_turns_leave_nothing_behind(issuer: FakeIssuer) -> None:
    verifier = issuer.verifier()
    with new_loop() as one, new_loop() as other:
        for _ in range(3):
            one.run_until_complete(verifier.verify(issuer.token()))
            other.run_until_complete(verifier.verify(issuer.token()))
        assert not left_in(one)
        assert len(issuer._streams) == 1
        one.run_until_complete(verifier.close())
        assert not left_in(other)
        assert not issuer._streams


@contextmanager
def opened_elsewhere(verifier: Verifier) -> Iterator[asyncio.AbstractEventLoop]:
    """`verifier` open in an event loop that runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(verifier.open(), loop).result(10)
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(verifier.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def test_a_second_running_loop_is_served_with_what_the_first_one_knows(issuer: FakeIssuer) -> None:
    verifier = issuer.verifier()
    with opened_elsewhere(verifier):
        token = issuer.token(sid="one")
        for _ in range(2):
            assert asyncio.run(verifier.verify(token)).session_id == "one"
        issuer.revoke(sid="one")
        with pytest.raises(RevokedToken):
            asyncio.run(verifier.verify(token))
        issuer.rotate()  # its key is fetched where the verifier runs
        asyncio.run(verifier.verify(issuer.token(sid="two")))
        assert len(issuer._streams) == 1
        assert issuer.requests.count("/revocations") == 1


def test_opening_in_a_second_running_loop_takes_nothing_from_the_first(issuer: FakeIssuer) -> None:
    async def given_up() -> None:
        opening = asyncio.create_task(verifier.open())
        await asyncio.sleep(0)
        opening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await opening
            await verifier.close()

    verifier = issuer.verifier()
    with opened_elsewhere(verifier) as loop:
        with TestClient(application(verifier)) as client:
            assert status(client, issuer) == 200
        asyncio.run(given_up())
        asked = asyncio.run_coroutine_threadsafe(verifier.verify(issuer.token()), loop)
        assert asked.result(10).subject == "user-1"
        assert issuer.requests.count("/revocations") == 1
    assert not issuer._streams


def test_a_client_without_a_lifespan_may_stand_beside_one_with_it(issuer: FakeIssuer) -> None:
    app = application(issuer.verifier())
    with TestClient(app) as client:
        assert status(client, issuer) == status(TestClient(app), issuer) == status(client, issuer) == 200


async def test_a_loop_that_is_held_up_keeps_nobody_waiting_for_what_is_known(issuer: FakeIssuer) -> None:
    """A blocking client in an async test: the loop that the verifier runs in stands still for its whole time."""
    verifier = issuer.verifier()
    async with verifier:
        with TestClient(application(verifier)) as client:
            assert status(client, issuer) == 200
            issuer.revoke(sid="session-1")
            assert status(client, issuer) == 401
            issuer.rotate()
            assert status(client, issuer, sid="two") == 503
        await verifier.verify(issuer.token(sid="two"))


async def test_one_who_asked_just_before_the_verifier_was_closed_is_told_so_and_not_cancelled() -> None:
    async with scripted_issuer() as issuer:
        before = asyncio.all_tasks()
        verifier = Verifier(issuer.url, audience="orders")
        asking = asyncio.create_task(verifier.verify(issuer.fake.token()))
        await asyncio.sleep(0)  # for its first step, and none of what it starts
        await verifier.close()
        with pytest.raises(KeysUnavailable):
            await asking
        assert asyncio.all_tasks() == before


async def test_an_async_client_beside_one_that_blocks_is_served(issuer: FakeIssuer) -> None:
    verifier = issuer.verifier()
    transport = httpx2.ASGITransport(app=application(verifier))
    async with verifier, httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
        blocking = TestClient(application(verifier))
        assert await asyncio.to_thread(status, blocking, issuer) == 200
        issuer.rotate()
        assert await asyncio.to_thread(status, blocking, issuer) == 200
        assert (await http.get("/orders", headers=issuer.headers(scope="orders:read"))).status_code == 200
