"""A failover of Redis in mid-load: nobody is logged out, no answered logout is lost, what cannot be answered is 503.

Real processes, on a real cluster and on real Sentinels. First the master is asked to hand over, then it is killed.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx2
import pytest

from auth_service.settings import Settings
from tests.support.feed import Feed, metric, named, open_feed, until_true
from tests.support.processes import ServedProcess, served
from tests.support.redis_topologies import ClusterSet, SentinelSet, started
from tests.support.service import PASSWORD, WINDOW, SignedIn, problem, signed_in
from tests.support.tokens import generation_of

_RECOVERY = 10.0
"""Seconds from the loss of a master until the last request that was refused because of it."""
_QUIET = 1.0  # seconds without a refusal, after which it is over
_BY_JOURNAL = 2.0
"""Seconds in which the feed tells of a logout while the stream is of no use."""
_NOTICED = 2.0
"""Seconds after the recovery in which the stream is read again."""
_REFRESHING, _LOGGING_OUT = 24, 40
_RESERVE = 10
"""Sessions that are left to be logged out one by one, to see how soon the feed tells of it."""
_STREAM = "auth:revocations"
# What the runbook advises for production takes longer; a campaign waits for it.
_PATIENCE = 5000 if "TEST_CAMPAIGN" in os.environ else 1000


@pytest.fixture(params=["cluster", "sentinel"])
def redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ClusterSet | SentinelSet]:
    made: ClusterSet | SentinelSet = (
        ClusterSet(tmp_path, replicas=1, node_timeout=_PATIENCE)
        if request.param == "cluster"
        else SentinelSet(tmp_path, down_after=_PATIENCE)
    )
    with started(made):
        yield made


@dataclass(slots=True)
class _Load:
    """Clients of one process that refresh and log out, and what they were answered."""

    http: httpx2.AsyncClient
    refreshing: list[SignedIn]
    logging_out: list[SignedIn]
    refreshes: list[tuple[float, int]] = field(default_factory=list)
    """When each was answered, and with what."""
    logged_out: dict[str, float] = field(default_factory=dict)
    """When each logout was answered, by what the feed calls the session."""
    ended: list[SignedIn] = field(default_factory=list)
    over: bool = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._log_out())
            for user in self.refreshing:
                # Each one's first refresh rotates: so there are some before, during and after.
                tasks.create_task(self._refresh(user))
                await asyncio.sleep(0.2)

    async def _refresh(self, user: SignedIn) -> None:
        while not self.over:
            answer = await _refreshed(self.http, user)
            self.refreshes.append((time.monotonic(), answer.status_code))
            if answer.status_code != 200:
                assert problem(answer) == (503, "unavailable")
            await asyncio.sleep(0.25)

    async def _log_out(self) -> None:
        while not self.over and len(self.logging_out) > _RESERVE:
            await self.log_out_one()
            await asyncio.sleep(0.5)

    async def log_out_one(self) -> tuple[SignedIn, float]:
        user = self.logging_out.pop()
        answer = await self.http.post("/user/logout", json={"refresh_token": user.refresh_token})
        assert answer.status_code == 204, answer.text
        answered = self.logged_out[named(user)] = time.monotonic()
        self.ended.append(user)
        return user, answered

    def refused(self, *, since: float) -> list[float]:
        """When a refresh was refused."""
        return [moment for moment, status in self.refreshes if status != 200 and moment > since]

    async def recovered(self, *, since: float) -> float:
        """Wait until nothing has been refused for a while: how long after `since` the last one was."""

        def quiet() -> bool:
            return time.monotonic() - max([since, *self.refused(since=since)]) > _QUIET

        await until_true(quiet, seconds=3 * _RECOVERY)
        return max([since, *self.refused(since=since)]) - since


async def _refreshed(http: httpx2.AsyncClient, user: SignedIn) -> httpx2.Response:
    """Refresh, and keep what came back."""
    answer = await http.post("/user/refresh-token", json={"refresh_token": user.refresh_token})
    if answer.status_code == 200:
        user.refresh_token = answer.json()["refresh_token"]
    return answer


@asynccontextmanager
async def _load(process: ServedProcess) -> AsyncIterator[_Load]:
    async with httpx2.AsyncClient(base_url=process.url, timeout=20) as http:
        account = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}
        assert (await http.post("/user/register", json=account)).status_code == 201
        sessions = []
        for _ in range(0, _REFRESHING + _LOGGING_OUT, 2):
            answers = [http.post("/user/login", json={"username": "ada", "password": PASSWORD}) for _ in range(2)]
            sessions += [signed_in(answer) for answer in await asyncio.gather(*answers)]
        load = _Load(http, sessions[:_REFRESHING], sessions[_REFRESHING:])
        running = asyncio.create_task(load.run())
        try:
            yield load
            load.over = True
            await running
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


@pytest.mark.parametrize("redis", ["cluster", "sentinel"], indirect=True)
async def test_a_failover_in_mid_load_logs_nobody_out_and_forgets_no_logout(
    redis: ClusterSet | SentinelSet,
    settings: Callable[..., Settings],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    offset_file = tmp_path / "offset"
    offset_file.write_text("0")
    with served(settings(redis_url=redis.url()), tmp_path, count=2, offset_file=offset_file) as [one, other]:
        async with open_feed(other.url) as feed, _load(one) as load:
            for how in ("asked", "killed"):
                await load.recovered(since=time.monotonic())
                master = await asyncio.to_thread(redis.master_of, _STREAM)
                lost, before = time.monotonic(), len(load.refreshes)
                if how == "asked":
                    await asyncio.to_thread(redis.fail_over, master)
                else:
                    await asyncio.to_thread(master.stop, signal.SIGKILL)
                await _until_replaced(redis, master.port)
                recovery = await load.recovered(since=lost)
                refused = len(load.refused(since=lost))
                answered = len(load.refreshes) - before - refused
                with capsys.disabled():
                    print(  # noqa: T201
                        f"\n{type(redis).__name__}, {how}: {answered} refreshes answered, {refused} times 503,"
                        f" recovered after {recovery:.1f} s; {len(load.logged_out)} logouts, all 204",
                        end="",
                    )
                assert recovery <= _RECOVERY
                await _stream_is_read_again(load, feed, other)
                if how == "asked":
                    await asyncio.to_thread(redis.wait_until_well)
                else:
                    assert refused, "the load did not notice that a master was gone"
            await feed.until(lambda: load.logged_out.keys() <= set(feed.ids))

        delays = [(feed.heard(session) or 0.0) - answered for session, answered in load.logged_out.items()]
        assert max(delays) < _BY_JOURNAL
        for later in (0, WINDOW + 1):
            offset_file.write_text(str(later))
            await _check(one, load, rotates=bool(later))


async def _until_replaced(redis: ClusterSet | SentinelSet, port: int) -> None:
    async with asyncio.timeout(3 * _RECOVERY):
        while True:
            found = await asyncio.to_thread(redis.find_master, _STREAM)
            if found is not None and found.port != port:
                return
            await asyncio.sleep(0.02)


async def _stream_is_read_again(load: _Load, feed: Feed, process: ServedProcess) -> None:
    """The other process hears of a logout by the stream, and not only by the journal."""
    deadline = time.monotonic() + _NOTICED
    heard = 'auth_revocation_entries_heard_total{source="stream"}'
    before = await metric(load.http, process, heard)
    while await metric(load.http, process, heard) == before:
        assert time.monotonic() < deadline, "the stream is not read"
        user, _ = await load.log_out_one()
        await feed.until(partial(_is_told, feed, named(user)))


def _is_told(feed: Feed, session: str) -> bool:
    return session in feed.ids


async def _check(process: ServedProcess, load: _Load, *, rotates: bool) -> None:
    """Who has logged out stays out, and everybody else is still in."""
    async with httpx2.AsyncClient(base_url=process.url, timeout=20) as http:
        for user in load.ended:
            assert problem(await _refreshed(http, user)) == (401, "refresh_token_revoked")
            headers = {"Authorization": f"Bearer {user.access_token}"}
            assert problem(await http.get("/user/me", headers=headers)) == (401, "invalid_token")
        for user in (*load.refreshing, *load.logging_out):
            before = generation_of(user.refresh_token)
            answer = await _refreshed(http, user)
            assert answer.status_code == 200, answer.text
            if rotates:
                assert generation_of(user.refresh_token) == before + 1
