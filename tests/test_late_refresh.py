"""Refreshes that come late or out of order: out of a stopped process, over a stalled connection, from a stopped Redis,
and into a browser's cookie jar. None of them costs an honest holder the session."""

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID, uuid4

import httpx2
import psutil
import pytest
from redis.asyncio import Redis

from auth_service.devstack.redis import PrivateRedis
from auth_service.errors import Unavailable
from auth_service.sessions.rotation import Generation, Outcome, Rotation, RotationStore
from auth_service.settings import Settings
from auth_service.stores.redis import open_redis
from tests.support.processes import ServedProcess
from tests.support.proxy import Proxy
from tests.support.service import PASSWORD, WINDOW, Service, problem, running_service
from tests.support.stores import Stores
from tests.support.tokens import generation_of

_SHORT_WINDOW = 5
"""Seconds: the least that is allowed, because whether a refresh is late is measured in real time."""
_TOO_LATE = 5.3
"""Seconds after which a refresh that is under way must not be carried out any more."""
_UNAVAILABLE = (503, "unavailable")
_COOKIE = "__Host-refresh_token"
_APP = {"Origin": "https://app.test"}


@contextmanager
def _proxied(url: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy in front of the server of `url`, and the URL that leads through it."""
    parts = urlsplit(url)
    assert parts.port is not None
    proxy = Proxy(parts.port)
    try:
        before_port = parts.netloc.rpartition(":")[0]
        yield proxy, urlunsplit(parts._replace(netloc=f"{before_port}:{proxy.port}"))
    finally:
        proxy.close()


@asynccontextmanager
async def _process(settings: Settings, folder: Path) -> AsyncIterator[ServedProcess]:
    process = ServedProcess(settings, folder)
    try:
        await asyncio.to_thread(process.wait_until_started)
        yield process
    finally:
        await asyncio.to_thread(process.stop)


async def _refresh_at(process: ServedProcess, refresh_token: str) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=process.url, timeout=20) as client:
        return await client.post("/user/refresh-token", json={"refresh_token": refresh_token})


async def _pass(moment: float, *, seconds: float) -> None:
    """Let real time pass until `seconds` after `moment`: nothing else makes a refresh late."""
    await asyncio.sleep(moment + seconds - time.monotonic())


async def _rotations(redis: "Redis") -> int:
    """How many rotations Redis has been asked for."""
    return int((await redis.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})["calls"])


async def _rotations_reach(redis: "Redis", count: int, *, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while (reached := await _rotations(redis)) < count:
        assert time.monotonic() < deadline, f"{reached} of {count}"
        await asyncio.sleep(0.02)


async def test_a_refresh_inside_a_stopped_process_does_no_harm_when_the_process_goes_on(
    settings: Callable[..., Settings], tmp_path: Path
) -> None:
    plain = settings(refresh_replay_window=_SHORT_WINDOW)
    with _proxied(plain.database_url.get_secret_value()) as (proxy, url):
        stalled = settings(refresh_replay_window=_SHORT_WINDOW, database_url=url)
        async with _process(stalled, tmp_path) as process, running_service(plain) as elsewhere:
            owner, other = await elsewhere.register(), await elsewhere.register()
            # A held refresh leaves the process nothing to write behind: what the proxy keeps next is the answer to the
            # owner's, with the time that PostgreSQL read for it.
            others_second = await elsewhere.refreshed(other.refresh_token)
            assert (await _refresh_at(process, others_second)).status_code == 200

            proxy.hold("to_client")
            late = asyncio.create_task(_refresh_at(process, owner.refresh_token))
            await asyncio.to_thread(proxy.wait_until_held, "to_client")
            process.send(signal.SIGSTOP)
            proxy.release("to_client")

            second = await elsewhere.refreshed(owner.refresh_token)
            await _pass(time.monotonic(), seconds=_TOO_LATE)
            third = await elsewhere.refreshed(second)
            assert generation_of(third) == 3

            process.send(signal.SIGCONT)
            with contextlib.suppress(httpx2.TransportError):  # no answer is as good
                assert problem(await late) == _UNAVAILABLE
            assert generation_of(await elsewhere.refreshed(third)) == 3
            assert (await _refresh_at(process, third)).status_code == 200


async def test_a_refresh_that_arrived_within_the_window_is_answered_however_long_postgresql_let_it_wait(
    settings: Callable[..., Settings],
) -> None:
    plain = settings()
    with _proxied(plain.database_url.get_secret_value()) as (proxy, url):
        async with running_service(settings(database_url=url)) as service:
            user = await service.register()
            second = await service.refreshed(user.refresh_token)
            service.advance(seconds=WINDOW - 2)
            proxy.hold("to_server")
            began = time.monotonic()
            other_tab = asyncio.create_task(service.refresh(user.refresh_token))
            await _pass(began, seconds=3)
            proxy.release("to_server")
            answer = await other_tab
            assert answer.status_code == 200, answer.text
            assert generation_of(answer.json()["refresh_token"]) == 2
            # Nobody who comes when the window is over has waited for that.
            assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_reused")
            assert problem(await service.refresh(second)) == (401, "refresh_token_revoked")


async def test_a_rotation_stalled_on_its_way_to_redis_does_no_harm_when_it_arrives(
    stores: Stores, settings: Callable[..., Settings]
) -> None:
    plain = settings(refresh_replay_window=_SHORT_WINDOW)
    with _proxied(stores.redis.url()) as (proxy, url):
        stalled = settings(refresh_replay_window=_SHORT_WINDOW, redis_url=url)
        async with AsyncExitStack() as stack:
            redis = await stack.enter_async_context(Redis.from_url(stores.redis.url()))
            fresh, warm, warm_too, elsewhere = [
                await stack.enter_async_context(running_service(each)) for each in (stalled, stalled, stalled, plain)
            ]
            waiting, waiting_too, moving, other = [await elsewhere.register() for _ in range(4)]
            # Redis knows the script, and all but the fresh service have seen how its clock goes.
            for service in (elsewhere, warm, warm_too):
                await service.refreshed(other.refresh_token)

            proxy.hold("to_server")
            began = time.monotonic()
            under_way = asyncio.gather(
                fresh.refresh(waiting.refresh_token),
                warm.refresh(waiting_too.refresh_token),
                warm_too.refresh(moving.refresh_token),
            )
            second = await elsewhere.refreshed(moving.refresh_token)
            assert [problem(answer) for answer in await under_way] == [_UNAVAILABLE] * 3
            await _pass(began, seconds=_TOO_LATE)
            elsewhere.advance(seconds=_SHORT_WINDOW + 1)
            third = await elsewhere.refreshed(second)

            arrived = await _rotations(redis)
            proxy.release("to_server")
            await _rotations_reach(redis, arrived + 3)

            assert generation_of(await elsewhere.refreshed(third)) == 3
            # These have been used nowhere else: the retry is the first use, whatever was sent before it.
            for user in (waiting_too, waiting):
                for _ in range(2):
                    assert generation_of(await elsewhere.refreshed(user.refresh_token)) == 2


async def test_a_rotation_that_waited_for_a_stopped_redis_does_no_harm_when_it_goes_on(
    settings: Callable[..., Settings], tmp_path: Path
) -> None:
    server = PrivateRedis(tmp_path)
    await asyncio.to_thread(server.start)
    try:
        own = settings(refresh_replay_window=_SHORT_WINDOW, redis_url=server.url())
        async with running_service(own) as warm, running_service(own) as fresh, Redis.from_url(server.url()) as redis:
            users = [await warm.register() for _ in range(3)]
            await warm.refreshed(users.pop().refresh_token)
            arrived = await _rotations(redis)

            psutil.Process(server.pid).suspend()
            began = time.monotonic()
            answers = await asyncio.gather(
                *(service.refresh(user.refresh_token) for service, user in zip((warm, fresh), users, strict=True))
            )
            assert {problem(answer) for answer in answers} == {_UNAVAILABLE}
            await _pass(began, seconds=_TOO_LATE)
            for service in (warm, fresh):
                service.advance(seconds=_SHORT_WINDOW + 1)
            psutil.Process(server.pid).resume()
            await _rotations_reach(redis, arrived + len(users))

            for user in users:
                for _ in range(2):
                    token = await warm.refreshed(user.refresh_token)
                    assert generation_of(token) == 2
    finally:
        await asyncio.to_thread(server.stop)


async def test_a_refresh_in_a_machine_that_stood_still_is_not_carried_out_when_the_machine_goes_on(
    stores: Stores,
) -> None:
    """The process's clock stands still with it, so by that the refresh is not late. Redis's clock has gone on."""
    stood_still = 0.0
    async with aclosing(open_redis(stores.redis_url)) as redis:
        rotations = RotationStore(
            redis,
            window=timedelta(seconds=_SHORT_WINDOW),
            idle_life=timedelta(days=7),
            monotonic=lambda: time.monotonic() - stood_still,
        )

        async def use(session_id: UUID, *, now: datetime, started: float) -> Rotation:
            return await rotations.rotate(
                session_id,
                1,
                checkpoint=Generation(1, None),
                now=now,
                arrived=now,
                unanswered=False,
                started=started,
                transport="body",
            )

        await use(uuid4(), now=datetime.now(UTC), started=rotations.started())  # it has seen how Redis's clock goes
        under_way, now = [uuid4(), uuid4()], datetime.now(UTC)
        stood_still = 40.0
        started = rotations.started()  # which by this clock is the same moment before and after
        for session_id in under_way:
            with pytest.raises(Unavailable):
                await use(session_id, now=now, started=started)
            assert await redis.get(f"auth:session:{session_id}") is None
        # Their honest retries are the first uses.
        for session_id in under_way:
            rotation = await use(session_id, now=now + timedelta(seconds=stood_still), started=rotations.started())
            assert rotation.outcome is Outcome.ROTATED


class _Browser:
    """A page with a cookie jar, whose answers are delivered when the test says so."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._jar = httpx2.Cookies()

    async def register(self, name: str) -> None:
        body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD, "transport": "cookie"}
        answer = await self._service.http.post("/user/register", json=body, headers=_APP)
        assert answer.status_code == 201, answer.text
        self._service.http.cookies.clear()
        self.deliver(answer)

    @property
    def generation(self) -> int:
        return generation_of(self._jar[_COOKIE])

    async def refresh(self) -> httpx2.Response:
        """The answer to a refresh with the cookie there is, not yet delivered."""
        async with self._service.client(headers=_APP, cookies=self._jar) as client:
            answer = await client.post("/user/refresh-token")
        assert answer.status_code == 200, answer.text
        return answer

    def deliver(self, answer: httpx2.Response) -> None:
        self._jar.extract_cookies(answer)


async def test_in_whatever_order_answers_reach_the_cookie_jar_the_cookie_left_works(service: Service) -> None:
    for number, order in enumerate(itertools.permutations(range(4))):
        browser = _Browser(service)
        await browser.register(f"browser{number}")
        answers = list(await asyncio.gather(*(browser.refresh() for _ in range(3))))
        assert all("set-cookie" in answer.headers for answer in answers)
        ahead = _Browser(service)
        ahead.deliver(answers[0])
        held = await ahead.refresh()
        assert "set-cookie" not in held.headers
        answers.append(held)

        for index in order:
            browser.deliver(answers[index])
        assert browser.generation == 2
        service.advance(seconds=WINDOW + 1)
        browser.deliver(await browser.refresh())
        assert browser.generation == 3


@pytest.mark.parametrize("next_use", [1, WINDOW + 1])
async def test_a_cookie_that_arrives_after_its_successor_still_works(service: Service, next_use: int) -> None:
    browser = _Browser(service)
    await browser.register("ada")
    await browser.refresh()  # its answer is lost
    service.advance(seconds=WINDOW - 1)
    slow, quick = await asyncio.gather(browser.refresh(), browser.refresh())
    browser.deliver(quick)
    service.advance(seconds=2)
    browser.deliver(await browser.refresh())
    # It was under way for two seconds, and the generation after its own was made meanwhile.
    browser.deliver(slow)
    service.advance(seconds=next_use)
    browser.deliver(await browser.refresh())
