"""Redis: the client that all callers use, its short patience, and which of its failures mean "away".

Which servers there are behind it is `redis_servers.py`'s and `redis_cluster.py`'s; the keys live with their nouns.
"""

import asyncio
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol

from redis.asyncio import Redis
from redis.commands.core import AsyncDataAccessCommands
from redis.event import EventDispatcher
from redis.exceptions import AskError, NoScriptError, ReadOnlyError, RedisError, TryAgainError

from auth_service.errors import Unavailable
from auth_service.metrics import STORE_FAILURES
from auth_service.redis_url import Topology, parse_redis_url
from auth_service.stores.redis_cluster import Cluster, key_of
from auth_service.stores.redis_servers import SOCKET_TIMEOUT, Connector, Master

ANSWER_TIMEOUT = 2.0
"""Seconds after which a command is given up, whatever it was waiting for and however often it was tried."""

_PROBE_TIMEOUT = 0.4  # seconds; who probes us gives us little more
_RETRIES = 1
_REDIRECTIONS = 4
_NOT_CARRIED_OUT = (AskError, TryAgainError, ReadOnlyError)  # MOVED is a kind of ASK


class _Servers(Protocol):
    """The servers behind a client."""

    async def execute(self, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any: ...
    async def masters(self) -> Mapping[str, "Redis"]: ...
    async def master_of(self, key: str | bytes) -> "Redis": ...
    async def aclose(self) -> None: ...


class RedisClient(AsyncDataAccessCommands):
    """Redis, however many servers that is: each command goes to the master that has its one key.

    It understands redis-py's commands for data. One that has no key is for each of `masters()`.
    """

    _is_async_client: Literal[True] = True
    _event_dispatcher: EventDispatcher  # of redis-py, for what it does to connections: none is made here

    def __init__(self, servers: _Servers, topology: Topology, *, patience: float) -> None:
        self.topology = topology
        self._servers = servers
        self._patience = patience

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Raises what redis-py raises, and TimeoutError once patience has run out: callers use `redis_failures`."""
        async with asyncio.timeout(self._patience):
            return await self._servers.execute(args, options)

    def register_script(self, script: str | bytes) -> "Script":
        return Script(self, script)

    async def execute_each(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """The answers of commands with one key each, in one round trip to each master that has some of the keys.

        One that is refused because its key is elsewhere is sent there by itself: it has not been carried out.
        """
        async with asyncio.timeout(self._patience):
            by_master: dict[Redis, list[int]] = {}
            for number, command in enumerate(commands):
                by_master.setdefault(await self._servers.master_of(key_of(command)), []).append(number)
            answers: dict[int, Any] = {}
            for master, numbers in by_master.items():
                async with master.pipeline(transaction=False) as pipeline:
                    for number in numbers:
                        pipeline.execute_command(*commands[number])
                    answers |= zip(numbers, await pipeline.execute(raise_on_error=False), strict=True)
            for number, answer in answers.items():
                if isinstance(answer, _NOT_CARRIED_OUT):
                    answers[number] = await self._servers.execute(tuple(commands[number]), {})
                elif isinstance(answer, Exception):
                    raise answer
            return [answers[number] for number in range(len(commands))]

    async def masters(self) -> Mapping[str, "Redis"]:
        """A client of each master, by where it is."""
        async with asyncio.timeout(self._patience):
            return await self._servers.masters()

    async def master_of(self, key: str) -> "Redis":
        """A client of the master that has `key`, on the connections that commands for that key use."""
        async with asyncio.timeout(self._patience):
            return await self._servers.master_of(key)

    async def aclose(self) -> None:
        await self._servers.aclose()


class Script:
    """A Lua script that touches one key.

    A server that does not know it yet is given it with the command itself: to load it first would be a command without
    a key, for every master of a cluster, one of which may be away.
    """

    def __init__(self, redis: RedisClient, text: str | bytes) -> None:
        self._redis = redis
        self._text = text if isinstance(text, bytes) else text.encode()
        self._digest = hashlib.sha1(self._text).hexdigest()  # noqa: S324 — how Redis names scripts

    async def __call__(self, keys: Sequence[str], args: Sequence[Any] = ()) -> Any:
        try:
            return await self._redis.execute_command("EVALSHA", self._digest, len(keys), *keys, *args)
        except NoScriptError:
            return await self._redis.execute_command("EVAL", self._text, len(keys), *keys, *args)


def open_redis(url: str, *, pool_size: int = 32) -> RedisClient:
    """A client that waits for a free connection, retries once, and gives up within about two seconds."""
    return _client(
        url,
        pool_size=pool_size,
        socket_timeout=SOCKET_TIMEOUT,
        retries=_RETRIES,
        redirections=_REDIRECTIONS,
        patience=ANSWER_TIMEOUT,
    )


def open_blocking_redis(url: str, *, block: float) -> RedisClient:
    """A client with one connection to a server, for commands that wait up to `block` seconds for something to happen.

    It retries nothing and follows no redirection by itself, so that its owner notices each time that it may speak to
    another node.
    """
    longest = block + SOCKET_TIMEOUT
    return _client(
        url, pool_size=1, socket_timeout=longest, retries=0, redirections=0, patience=longest + SOCKET_TIMEOUT
    )


def _client(
    url: str, *, pool_size: int, socket_timeout: float, retries: int, redirections: int, patience: float
) -> RedisClient:
    address = parse_redis_url(url)
    connect = Connector(address, pool_size=pool_size, socket_timeout=socket_timeout, retries=retries)
    servers: _Servers
    if address.topology == "cluster":
        servers = Cluster(address.hosts, connect.to, redirections=redirections)
    elif address.topology == "sentinel":
        servers = connect.to_named_by_sentinels()
    else:
        servers = Master(connect.to(address.hosts[0]), address)
    return RedisClient(servers, address.topology, patience=patience)


@contextmanager
def redis_failures(place: str = "") -> Iterator[None]:
    """Turn every failure of Redis into Unavailable: never a wrong answer, never a lost session."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as exc:
        STORE_FAILURES.labels(store="redis").inc()
        at = f"{place}: " if place else ""
        raise Unavailable(f"redis: {at}{type(exc).__name__}") from exc


async def require_answers(redis: RedisClient) -> None:
    """Return if every master answers at once. Raises Unavailable, which names one that does not."""

    async def answers(place: str, master: "Redis") -> None:
        with redis_failures(place):
            async with asyncio.timeout(_PROBE_TIMEOUT):
                await master.ping()

    await asyncio.gather(*(answers(*each) for each in (await _masters(redis)).items()))


class UnsuitableRedis(Exception):
    """This Redis may drop keys by itself, or is not what its URL says."""


async def require_suitable(redis: RedisClient, allow_insecure: Collection[str]) -> Mapping[str, str]:
    """The `maxmemory-policy` of each master by where it is, as it says itself (no CONFIG right is needed), if it fits.

    Every key of ours has a life, so any policy but `noeviction` may take one, and a session's generation with it.
    Raises UnsuitableRedis, Unavailable.
    """
    policies = {}
    for place, master in (await _masters(redis)).items():
        with redis_failures(place):
            async with asyncio.timeout(ANSWER_TIMEOUT):
                told = await master.info()
            if told.get("role") != "master":
                raise ReadOnlyError("a replica")
        if told.get("cluster_enabled") and redis.topology != "cluster":
            raise UnsuitableRedis(f"{place} is a node of a cluster: write AUTH_REDIS_URL as redis+cluster://")
        policies[place] = str(told.get("maxmemory_policy", "not known"))
        if policies[place] != "noeviction" and "evicting_redis" not in allow_insecure:
            raise UnsuitableRedis(
                f"{place}: its maxmemory-policy is {policies[place]}: set it to noeviction"
                " (AUTH_ALLOW_INSECURE=evicting_redis lifts this)"
            )
    return policies


async def _masters(redis: RedisClient) -> Mapping[str, "Redis"]:
    with redis_failures():
        return await redis.masters()
