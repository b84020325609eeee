"""Redis as a cluster and behind Sentinels: sessions live as on a single server, and what is wrong is named.

`make redis-topologies` runs the whole of the session and feed tests so; this is what always runs.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from redis import Redis
from redis.exceptions import RedisError

from auth_service.devstack.process import free_port
from auth_service.errors import Unavailable
from auth_service.sessions.rotation import Generation, Outcome, RotationStore
from auth_service.settings import Settings
from auth_service.stores.redis import RedisClient, open_redis, redis_failures
from tests.support.balancer import Balancer
from tests.support.command import command
from tests.support.redis_topologies import ClusterSet, SentinelSet, flush, started
from tests.support.service import WINDOW, problem, running_service
from tests.support.stores import Stores
from tests.support.tokens import claims_of, generation_of

MakeSettings = Callable[..., Settings]

_AT_ONCE = 0.5
"""Seconds for what does not wait for a node that hangs."""
_GIVEN_UP = 2.0
"""Seconds after which a command is given up."""
_SLACK = 0.7


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterSet]:
    with started(ClusterSet(tmp_path_factory.mktemp("cluster"))) as made:
        yield made


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelSet]:
    with started(SentinelSet(tmp_path_factory.mktemp("sentinels"), down_after=10_000)) as made:
        yield made


@pytest.fixture(params=["cluster", "sentinels"])
def redis(request: pytest.FixtureRequest) -> ClusterSet | SentinelSet:
    made: ClusterSet | SentinelSet = request.getfixturevalue(request.param)
    flush(made)
    return made


@asynccontextmanager
async def _client(url: str, *, pool_size: int = 8) -> AsyncIterator[RedisClient]:
    client = open_redis(url, pool_size=pool_size)
    try:
        yield client
    finally:
        await client.aclose()


def _on(port: int, *, text: bool = False) -> "Redis":
    """One node, spoken to directly. `text`: what it says is decoded."""
    return Redis(host="127.0.0.1", port=port, decode_responses=text)


def _tell(port: int, *command: Any) -> Any:
    return _on(port).execute_command(*command)  # type: ignore[no-untyped-call]


def _keys_of(cluster: ClusterSet, master: int) -> list[str]:
    """Keys that are the master's on this port."""
    names = [f"auth:session:{uuid4()}" for _ in range(40)]
    return [name for name in names if cluster.master_of(name).port == master]


# Sessions.


async def test_a_session_lives_as_it_does_on_a_single_server(
    redis: ClusterSet | SentinelSet, settings: MakeSettings
) -> None:
    async with running_service(settings(redis_url=redis.url())) as service:
        users = [await service.register() for _ in range(12)]
        newest = [await service.refreshed(user.refresh_token) for user in users]
        assert [await service.refreshed(user.refresh_token) for user in users] != newest
        service.advance(seconds=WINDOW + 1)
        newest = [await service.refreshed(token) for token in newest]
        assert {generation_of(token) for token in newest} == {3}
        if isinstance(redis, ClusterSet):
            held = {port: {str(key) for key in _on(port, text=True).keys("auth:session:*")} for port in redis.ports()}
            assert all(redis.master_of(key).port == port for port, keys in held.items() for key in keys)
            assert sum(map(bool, held.values())) > 1, "the keys are spread over the masters"
        assert problem(await service.refresh(users[0].refresh_token)) == (401, "refresh_token_reused")
        for user, token in zip(users[1:4], newest[1:4], strict=True):
            assert (await service.logout(token)).status_code == 204
            assert problem(await service.refresh(token)) == (401, "refresh_token_revoked")
            assert await service.redis.get(f"auth:session:{claims_of(user.access_token)['sid']}") is None
        await service.flush_checkpoints()
        await service.flush_redis()
        for token in newest[4:]:
            assert generation_of(await service.refreshed(token)) == 3
        assert (await service.internal.get("/readyz")).json()["stores"] == {"postgresql": "up", "redis": "up"}


async def test_more_commands_than_connections_wait_for_their_turn(redis: ClusterSet | SentinelSet) -> None:
    async with _client(redis.url(), pool_size=2) as client:
        script = client.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
        keys = [f"auth:session:{number}" for number in range(20)]
        await asyncio.gather(*(script([key], [number]) for number, key in enumerate(keys * 3)))
        assert await asyncio.gather(*map(client.get, keys)) == [
            str(sum(range(number, 60, 20))).encode() for number in range(20)
        ]
        await client.execute_each([("DEL", key) for key in keys])
        assert await asyncio.gather(*map(client.get, keys)) == [None] * 20


async def test_masters_whose_clocks_differ_are_not_taken_for_a_machine_that_stood_still(cluster: ClusterSet) -> None:
    """Seconds by which another master's clock is ahead of the first one's look as if ours were so far behind."""
    flush(cluster)
    behind = 0.0
    async with _client(cluster.url()) as client:
        rotations = RotationStore(
            client,
            window=timedelta(seconds=WINDOW),
            idle_life=timedelta(days=7),
            monotonic=lambda: time.monotonic() - behind,
        )
        ids = [uuid4() for _ in range(12)]
        assert len({cluster.master_of(f"auth:session:{session_id}").port for session_id in ids}) > 1
        first = cluster.servers[0].port
        for session_id in ids:
            behind = 0.0 if cluster.master_of(f"auth:session:{session_id}").port == first else 10.0
            now = datetime.now(UTC)
            rotation = await rotations.rotate(
                session_id,
                1,
                checkpoint=Generation(1, None),
                now=now,
                arrived=now,
                unanswered=False,
                started=rotations.started(),
                transport="body",
            )
            assert rotation.outcome is Outcome.ROTATED


# What `check` and the probes say.


def test_check_names_every_master(redis: ClusterSet | SentinelSet, settings: MakeSettings) -> None:
    done = command("check", settings=settings(redis_url=redis.url()))
    assert done.code == 0, done.out
    for port in redis.ports():
        assert f"127.0.0.1:{port} answers, its maxmemory-policy is noeviction" in " ".join(done.out.split())


def test_check_names_the_master_that_evicts(redis: ClusterSet | SentinelSet, settings: MakeSettings) -> None:
    port = redis.ports()[-1]
    _on(port).config_set("maxmemory-policy", "allkeys-lru")
    try:
        done = command("check", settings=settings(redis_url=redis.url()))
    finally:
        _on(port).config_set("maxmemory-policy", "noeviction")
    assert done.code == 1
    assert f"127.0.0.1:{port}: its maxmemory-policy is allkeys-lru: set it to noeviction" in " ".join(done.out.split())


def test_check_says_which_kind_of_redis_was_given_for_another(
    stores: Stores, cluster: ClusterSet, sentinels: SentinelSet, settings: MakeSettings
) -> None:
    master = sentinels.master_of("")
    replica = next(server for server in sentinels.servers if server is not master)
    sentinel = sentinels.url().partition("//")[2].partition(",")[0]
    given = {
        f"redis://127.0.0.1:{cluster.ports()[0]}": "is a node of a cluster: write AUTH_REDIS_URL as redis+cluster://",
        f"redis+cluster://127.0.0.1:{master.port}": "it is no cluster: write AUTH_REDIS_URL as redis:// or",
        f"redis://127.0.0.1:{replica.port}": "it is a replica, which takes no writes",
        f"redis+sentinel://{sentinel}/another": "no Sentinel that answers knows a master of this name",
        f"redis+sentinel://127.0.0.1:{free_port()}/auth-master": "no Sentinel that answers",
        f"redis+cluster://127.0.0.1:{free_port()}": "nothing listens there",
    }
    for url, says in given.items():
        done = command("check", settings=settings(redis_url=url))
        assert done.code == 1, url
        assert says in " ".join(done.out.split()), done.out


async def test_a_master_that_hangs_is_named_and_holds_up_nobody_else(
    cluster: ClusterSet, settings: MakeSettings
) -> None:
    hanging, *others = cluster.ports()
    lost, kept = _keys_of(cluster, hanging), _keys_of(cluster, others[0])
    async with running_service(settings(redis_url=cluster.url())) as service:
        for key in (*lost, *kept):
            await service.redis.set(key, "1 0", px=60_000)
        with _suspended(cluster.pid_of(hanging)):
            began = time.monotonic()
            waiting = asyncio.gather(*map(service.redis.get, lost), return_exceptions=True)
            while not waiting.done():
                asked = time.monotonic()
                assert await service.redis.get(kept[0]) == b"1 0"
                assert time.monotonic() - asked < _AT_ONCE
                await asyncio.sleep(0.05)
            assert time.monotonic() - began < _GIVEN_UP + _SLACK
            for failure in await waiting:
                assert isinstance(failure, RedisError | TimeoutError)
            ready = await service.internal.get("/readyz")
            assert ready.status_code == 200
            assert ready.json()["stores"]["redis"] == "down"
            assert f"127.0.0.1:{hanging}" in ready.json()["problems"]["redis"]
    cluster.wait_until_well()


async def test_where_everything_hangs_a_command_is_given_up_in_time(redis: ClusterSet | SentinelSet) -> None:
    async with _client(redis.url()) as client:
        await client.set("auth:session:x", "1 0", px=60_000)
        with _suspended(*redis.pids()):
            began = time.monotonic()
            with pytest.raises(Unavailable), redis_failures():
                await client.get("auth:session:x")
            assert time.monotonic() - began < _GIVEN_UP + _SLACK
        assert await client.get("auth:session:x") == b"1 0"
    redis.wait_until_well()


@contextmanager
def _suspended(*pids: int) -> Iterator[None]:
    processes = [psutil.Process(pid) for pid in pids]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


# The layout of a cluster changes.


async def test_a_slot_that_is_being_moved_is_followed(cluster: ClusterSet) -> None:
    one, other, *_ = cluster.ports()
    moving = _keys_of(cluster, one)[0]
    slot = _tell(one, "CLUSTER KEYSLOT", moving)
    ids = [_tell(node, "CLUSTER MYID").decode() for node in (one, other)]
    async with _client(cluster.url()) as client:
        assert await client.incr(moving) == 1
        _tell(other, "CLUSTER SETSLOT", slot, "IMPORTING", ids[0])
        _tell(one, "CLUSTER SETSLOT", slot, "MIGRATING", ids[1])
        _tell(one, "DEL", moving)  # as if it were over there already
        # Many at once, and no leave to ask is used up by another one's command: each is needed once.
        assert sorted(await asyncio.gather(*(client.incr(moving) for _ in range(200)))) == list(range(1, 201))
        assert _on(other).info("commandstats")["cmdstat_asking"]["calls"] == 200
        for node in (other, one):
            _tell(node, "CLUSTER SETSLOT", slot, "NODE", ids[1])
        assert sorted(await asyncio.gather(*(client.incr(moving) for _ in range(50)))) == list(range(201, 251))
        assert _tell(other, "GET", moving) == b"250"


async def test_a_slot_without_a_master_is_unavailable_and_the_others_are_not(cluster: ClusterSet) -> None:
    one, other, *_ = ports = cluster.ports()
    gone, kept = _keys_of(cluster, one)[0], _keys_of(cluster, other)[0]
    slot = _tell(one, "CLUSTER KEYSLOT", gone)
    for port in ports:
        _on(port).config_set("cluster-require-full-coverage", "no")
        _tell(port, "CLUSTER DELSLOTS", slot)
    async with _client(cluster.url()) as client:
        await client.set(kept, "1")
        assert await client.get(kept) == b"1"
        with pytest.raises(Unavailable, match="ClusterDownError"), redis_failures():
            await client.get(gone)
        with pytest.raises(Unavailable, match="ClusterDownError"), redis_failures():
            await client.masters()
    _tell(one, "CLUSTER ADDSLOTS", slot)
    for port in ports:
        _on(port).config_set("cluster-require-full-coverage", "yes")
    cluster.wait_until_well()


# A server that is no longer the master goes on answering.


async def test_a_master_that_was_demoted_behind_its_name_is_left(stores: Stores, sentinels: SentinelSet) -> None:
    """As with a managed Redis whose name leads to another server after a failover."""
    master = sentinels.master_of("")
    demoted = next(server for server in sentinels.servers if server is not master)
    with Balancer([demoted.port]) as name:
        async with _client(f"redis://127.0.0.1:{name.port}", pool_size=1) as client:
            assert (await (await client.master_of("x")).role())[0] == b"slave"
            name.targets = [master.port]
            await client.set("auth:session:x", "1 0", px=1000)
            assert await client.get("auth:session:x") == b"1 0"


async def test_what_a_sentinel_names_must_say_itself_that_it_is_the_master(sentinels: SentinelSet) -> None:
    master = sentinels.master_of("")
    async with _client(sentinels.url()) as client:
        _on(master.port).replicaof("127.0.0.1", "1")
        try:
            with pytest.raises(Unavailable), redis_failures():
                await client.get("auth:session:x")
        finally:
            _on(master.port).replicaof("NO", "ONE")
        assert await client.get("auth:session:y") is None


async def test_a_process_that_was_quiet_through_a_failover_is_answered_at_once(tmp_path: Path) -> None:
    with started(ClusterSet(tmp_path, replicas=1, node_timeout=1000)) as cluster:
        key = "auth:session:x"
        master = cluster.master_of(key)
        async with _client(cluster.url()) as client:
            assert await client.get(key) is None
            master.stop(signal.SIGKILL)
            deadline = time.monotonic() + 20
            while cluster.find_master(key) is None:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            # The first that it hears of it is this command's own failure.
            await client.set(key, "1 0", px=60_000)
            assert await client.get(key) == b"1 0"
