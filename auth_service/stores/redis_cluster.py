"""A Redis Cluster: each command goes to the master that owns its key, over the same client as to a single server.

redis-py's own cluster client is not taken. While a master is away every failed command makes it read the layout and the
list of all commands anew and reconnect to the nodes that are well; its pools raise where ours wait; and an ASK is
followed on another connection than the one that was told of it. What we need is little: no command of ours has more
than one key.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from auth_service.redis_url import Host

_COOLDOWN = 0.25  # seconds from one question about the layout to the next, however many commands fail meanwhile
_LAYOUT_PATIENCE = 0.5  # seconds for one node to tell the layout
_WITH_A_SIGN = frozenset({"EVAL", "EVALSHA"})

# After these another node may be the one to ask: this one says so itself (MOVED is a kind of ASK), or is no longer the
# master. A command that its caller gives up may have hung on one that is gone.
_ELSEWHERE = (
    AskError,
    RedisConnectionError,
    RedisTimeoutError,
    ClusterDownError,
    ReadOnlyError,
    OSError,
    TimeoutError,
    asyncio.CancelledError,
)


class NoClusterError(RedisError):
    """A node that answers is not part of any cluster."""


class Cluster:
    """Follows the layout as nodes tell it, whenever one gives reason to doubt it.

    `connect` makes the client of one node. `redirections`: how often a command follows another node's advice; 0 for
    whoever must notice that it would speak to another one.
    """

    def __init__(self, seeds: Sequence[Host], connect: Callable[[Host], "Redis"], *, redirections: int) -> None:
        self._connect = connect
        self._redirections = redirections
        self._seeds = tuple(seeds)
        self._nodes = list(seeds)
        """All there are, those first that have answered last."""
        self._clients: dict[Host, Redis] = {}
        self._owners: list[Host | None] = []
        """The master of each slot, None where there is none. Empty until a node has told."""
        self._learning: asyncio.Task[None] | None = None
        self._asked = -_COOLDOWN
        self._problem: Exception | None = None

    async def execute(self, args: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """Raises whatever redis-py raises."""
        slot = _slot_of(key_of(args))
        owner, asking = await self._owner(slot), False
        left = self._redirections
        while True:
            try:
                return await (_ask if asking else _send)(self._client(owner), args, options)
            except _ELSEWHERE as exc:
                found = await self._elsewhere(exc, slot, owner)
                if found is None or left == 0:
                    raise
            owner, asking = found
            left -= 1

    async def masters(self) -> Mapping[str, "Redis"]:
        """The clients of all masters, by where they are. Raises ClusterDownError where slots have none."""
        if self._owners:
            self._doubt()
        else:
            await self._learn()
        missing = self._owners.count(None)
        if missing:
            raise ClusterDownError(f"{missing} of {REDIS_CLUSTER_HASH_SLOTS} slots have no master")
        return {str(owner): self._client(owner) for owner in dict.fromkeys(self._owners) if owner is not None}

    async def master_of(self, key: str | bytes) -> "Redis":
        return self._client(await self._owner(_slot_of(key)))

    async def aclose(self) -> None:
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.wait({self._learning})
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    async def _owner(self, slot: int) -> Host:
        if not self._owners:
            await self._learn()
        owner = self._owners[slot]
        if owner is None:
            self._doubt()
            raise ClusterDownError("no master has the slot")
        return owner

    def _client(self, host: Host) -> "Redis":
        if host not in self._clients:
            self._clients[host] = self._connect(host)
        return self._clients[host]

    async def _elsewhere(self, exc: BaseException, slot: int, owner: Host) -> tuple[Host, bool] | None:
        """Where else to send a command that `owner` has failed, and whether to ask for leave there; None: nowhere."""
        if isinstance(exc, MovedError):
            self._owners[slot] = _told(exc, owner)
            self._doubt()
            return _told(exc, owner), False
        if isinstance(exc, AskError):
            return _told(exc, owner), True
        self._doubt(owner)
        if isinstance(exc, asyncio.CancelledError):
            return None
        if self._learning is not None:
            await self._learn()
        now = self._owners[slot]
        return None if now is None or now == owner else (now, False)

    def _doubt(self, suspect: Host | None = None) -> None:
        """Have the layout told anew, beside the commands: those for the masters that are well do not wait for it.

        Not by the suspect, if another one can be asked: one that was cut off tells what was true before.
        """
        if suspect in self._nodes:
            self._nodes.remove(suspect)
            self._nodes.append(suspect)
        if self._learning is None and time.monotonic() - self._asked >= _COOLDOWN:
            self._learning = asyncio.create_task(self._ask_nodes())

    async def _learn(self) -> None:
        """Wait for the layout. One question serves all who wait, and outlives each of them."""
        if self._learning is None:
            self._learning = asyncio.create_task(self._ask_nodes())
        await asyncio.shield(self._learning)
        if self._problem is not None and not self._owners:
            raise self._problem

    async def _ask_nodes(self) -> None:
        try:
            for host in tuple(self._nodes):
                try:
                    async with asyncio.timeout(_LAYOUT_PATIENCE):
                        layout = await _send(self._client(host), ("CLUSTER SLOTS",), {})
                except (RedisError, OSError, TimeoutError) as exc:
                    self._problem = NoClusterError() if "cluster support disabled" in str(exc) else exc
                    self._nodes.remove(host)
                    self._nodes.append(host)
                    continue
                self._problem = None
                await self._adopt(layout, told_by=host)
                return
        finally:
            self._asked = time.monotonic()
            self._learning = None

    async def _adopt(self, layout: Sequence[Any], *, told_by: Host) -> None:
        owners: list[Host | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        nodes = {told_by: None}
        for first, last, *places in layout:
            master, *replicas = (_host(place, told_by) for place in places)
            owners[first : last + 1] = [master] * (last + 1 - first)
            nodes |= dict.fromkeys([master, *replicas])
        self._owners = owners
        self._nodes = [*nodes, *(seed for seed in self._seeds if seed not in nodes)]
        for host in self._clients.keys() - set(self._nodes):
            await self._clients.pop(host).aclose()


def key_of(args: Sequence[Any]) -> str | bytes:
    """A command's one key. Raises ValueError if it has none."""
    command = str(args[0]).upper()
    if command in _WITH_A_SIGN:
        key = args[3]  # after the script and the number of keys
    elif command == "XREAD":
        key = args[args.index("STREAMS") + 1]
    elif len(args) > 1:
        key = args[1]
    else:
        raise ValueError(f"{command} has no key, so no node of a cluster is the one to ask")
    return key if isinstance(key, bytes) else str(key)


def _slot_of(key: str | bytes) -> int:
    return key_slot(key if isinstance(key, bytes) else key.encode())


async def _send(client: "Redis", args: Sequence[Any], options: Mapping[str, Any]) -> Any:
    return await client.execute_command(*args, **options)  # type: ignore[no-untyped-call]


async def _ask(client: "Redis", args: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """A command for a slot that is on its way to this node: the leave to ask counts for one connection."""
    async with client.pipeline(transaction=False) as pipeline:
        pipeline.execute_command("ASKING")
        pipeline.execute_command(*args, **options)
        return (await pipeline.execute())[1]


def _told(redirection: AskError, told_by: Host) -> Host:
    return _host((redirection.host, redirection.port), told_by)


def _host(place: Sequence[Any], told_by: Host) -> Host:
    """A node that does not know its own name leaves it out: it is the one by which it was asked."""
    name = place[0].decode() if isinstance(place[0], bytes) else place[0]
    return Host(name or told_by.name, int(place[1]))
