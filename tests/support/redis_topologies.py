"""Redis as it is run for high availability, on loopback: a real cluster, and a master with replicas and Sentinels."""

import itertools
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from auth_service.devstack.process import ServerProcess, free_port
from auth_service.devstack.redis import PrivateRedis, find_binary
from tests.support.redis_security import Security

MASTER = "auth-master"
"""What the Sentinels call the master."""
_SLOTS = 16384
_HOST = "127.0.0.1"


class Server:
    """One `redis-server` on a port that it keeps; what it held is gone when it stops."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        port: int | None = None,
        sentinel: Path | None = None,
        security: Security | None = None,
    ) -> None:
        self.port = port or free_port()
        self._folder = folder
        self._options = options
        self._sentinel = sentinel
        self._security = security
        self._process: ServerProcess | None = None

    def start(self) -> None:
        command: list[str | Path] = [find_binary()]
        command += [self._sentinel, "--sentinel"] if self._sentinel else ["--save", "", "--appendonly", "no"]
        command += ["--bind", _HOST, "--dir", self._folder, *self._options]
        if self._security is None:
            command += ["--port", str(self.port)]
        else:
            command += self._security.options(self.port, sentinel=self._sentinel is not None)
        self._process = ServerProcess(command, log=self._folder / f"redis-{self.port}.log")
        self._process.wait_until(self.is_up)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.stop(number)
            self._process = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def is_up(self) -> bool:
        return self.said("PING") is True

    def said(self, *command: str) -> Any:
        """The answer to one command; None where nobody answers, or not in this way."""
        options: dict[str, Any] = dict(self._security.client_options) if self._security is not None else {}
        try:
            with Redis(host=_HOST, port=self.port, socket_timeout=1, socket_connect_timeout=1, **options) as client:
                return client.execute_command(*command)
        except (RedisError, OSError):
            return None

    def is_master(self) -> bool:
        role = self.said("ROLE")
        return bool(role) and role[0] == b"master"


class ClusterSet:
    """Three masters, each with `replicas` replicas. A node that does not answer is given up after `node_timeout` ms."""

    def __init__(
        self, folder: Path, *, replicas: int = 0, node_timeout: int = 2000, security: Security | None = None
    ) -> None:
        self._buses = [free_port() for _ in range(3 * (1 + replicas))]
        self.servers = [
            Server(
                folder,
                *("--cluster-enabled", "yes", "--cluster-port", str(bus)),
                *("--cluster-config-file", f"nodes-{bus}.conf", "--cluster-node-timeout", str(node_timeout)),
                *("--repl-diskless-sync-delay", "0", *(("--tls-cluster", "yes") if security else ())),
                security=security,
            )
            for bus in self._buses
        ]
        self.version = "a cluster"

    def start(self) -> None:
        for server in self.servers:
            server.start()
        masters = self.servers[:3]
        for number, master in enumerate(masters):
            from_slot, to_slot = _SLOTS * number // 3, _SLOTS * (number + 1) // 3 - 1
            master.said("CLUSTER ADDSLOTSRANGE", str(from_slot), str(to_slot))
        for number, server in enumerate(self.servers, start=1):
            server.said("CLUSTER SET-CONFIG-EPOCH", str(number))
        for server, bus in zip(self.servers[1:], self._buses[1:], strict=True):
            self.servers[0].said("CLUSTER MEET", _HOST, str(server.port), str(bus))
        _wait(lambda: all(self._knows_all(server) for server in self.servers))
        for number, replica in enumerate(self.servers[3:]):
            identity = masters[number % 3].said("CLUSTER MYID").decode()
            _wait(lambda replica=replica, identity=identity: replica.said("CLUSTER REPLICATE", identity) is True)  # type: ignore[misc]
        self.wait_until_well()

    def stop(self) -> None:
        for server in self.servers:
            server.stop(signal.SIGKILL)

    def url(self) -> str:
        return f"redis+cluster://{self.hosts}"

    @property
    def hosts(self) -> str:
        """Two nodes of it are enough to find the others."""
        return ",".join(f"{_HOST}:{server.port}" for server in self.servers[:2])

    def ports(self) -> list[int]:
        """Of the masters there are."""
        return [server.port for server in self.servers if server.is_master()]

    def pid_of(self, port: int) -> int:
        return next(server.pid for server in self.servers if server.port == port)

    def find_master(self, key: str) -> Server | None:
        """The one that has `key`; None while there is none."""
        slot = key_slot(key.encode())
        return next((server for server in self.servers if server.is_master() and _has_slot(server, slot)), None)

    def pids(self) -> list[int]:
        return [server.pid for server in self.servers]

    def master_of(self, key: str) -> Server:
        found = self.find_master(key)
        assert found is not None, "no master has it"
        return found

    def replica_of(self, master: Server) -> Server:
        return next(
            server
            for server in self.servers
            if (role := server.said("ROLE")) and role[0] == b"slave" and role[2] == master.port
        )

    def fail_over(self, master: Server) -> None:
        """Have its replica take its place; nothing is lost."""
        self.replica_of(master).said("CLUSTER FAILOVER")

    def wait_until_well(self) -> None:
        """Until every node says so, and every replica has what its master has."""
        _wait(lambda: all(_is_well(server) for server in self.servers))

    def _knows_all(self, server: Server) -> bool:
        nodes = server.said("CLUSTER NODES")
        return len(nodes or ()) == len(self.servers) and not any(
            "handshake" in node["flags"] for node in nodes.values()
        )


class SentinelSet:
    """One master, two replicas and three Sentinels, which give a server up after `down_after` ms."""

    def __init__(self, folder: Path, *, down_after: int = 1000, security: Security | None = None) -> None:
        master = free_port()
        common = ("--repl-diskless-sync-delay", "0")
        self.servers = [
            Server(folder, *common, port=master, security=security),
            *(Server(folder, *common, "--replicaof", f"{_HOST} {master}", security=security) for _ in range(2)),
        ]
        self._sentinels = []
        for number in range(3):
            file = folder / f"sentinel-{number}.conf"
            file.write_text(
                f"sentinel monitor {MASTER} {_HOST} {master} 2\n"
                f"sentinel down-after-milliseconds {MASTER} {down_after}\n"
                f"sentinel failover-timeout {MASTER} 6000\n"
                f"{security.sentinel_lines(MASTER) if security else ''}"
            )
            self._sentinels.append(Server(folder, sentinel=file, security=security))
        self.version = "Sentinels"

    def start(self) -> None:
        for server in (*self.servers, *self._sentinels):
            server.start()
        self.wait_until_well()

    def stop(self) -> None:
        for server in (*self._sentinels, *self.servers):
            server.stop(signal.SIGKILL)

    def url(self) -> str:
        return f"redis+sentinel://{self.hosts}"

    @property
    def hosts(self) -> str:
        sentinels = ",".join(f"{_HOST}:{sentinel.port}" for sentinel in self._sentinels)
        return f"{sentinels}/{MASTER}"

    def ports(self) -> list[int]:
        return [self.master_of("").port]

    def find_master(self, _key: str) -> Server | None:
        """The one that the Sentinels name, up or not; None while they do not agree."""
        named = [sentinel.said("SENTINEL GET-MASTER-ADDR-BY-NAME", MASTER) for sentinel in self._sentinels]
        ports = {int(place[1]) if place else 0 for place in named}
        return next((server for server in self.servers if ports == {server.port}), None)

    def pids(self) -> list[int]:
        return [server.pid for server in (*self.servers, *self._sentinels)]

    def master_of(self, key: str) -> Server:
        found = self.find_master(key)
        assert found is not None, "the Sentinels do not agree"
        return found

    def fail_over(self, _master: Server) -> None:
        """Have a replica take its place, as the Sentinels do it when they are asked."""
        self._sentinels[0].said("SENTINEL FAILOVER", MASTER)

    def wait_until_well(self) -> None:
        """Until the Sentinels agree and know of each other, and both replicas have what the master has."""

        def holds() -> bool:
            masters = [_pairs(sentinel.said("SENTINEL MASTER", MASTER)) for sentinel in self._sentinels]
            return all(
                (state.get("num-other-sentinels"), state.get("num-slaves"), state.get("flags")) == ("2", "2", "master")
                for state in masters
            ) and (
                # A master that was asked to hand over goes on as one until the Sentinels tell it, seconds later.
                [self.find_master("")] == [server for server in self.servers if server.is_master()]
                and all(_is_well(server) for server in self.servers)
            )

        _wait(holds)


RedisTopology = PrivateRedis | ClusterSet | SentinelSet


def flush(redis: RedisTopology) -> None:
    """Remove every key."""
    for port in [redis.port] if isinstance(redis, PrivateRedis) else redis.ports():
        with Redis(host=_HOST, port=port) as client:
            client.flushall()


@contextmanager
def started(redis: ClusterSet | SentinelSet | Server) -> Iterator[Any]:
    try:
        redis.start()
        yield redis
    finally:
        redis.stop()


def _is_well(server: Server) -> bool:
    role = server.said("ROLE")
    if not role or (role[0] == b"slave" and role[3] != b"connected"):
        return False
    state = server.said("CLUSTER INFO")
    return state is None or state["cluster_state"] == "ok"


def _has_slot(server: Server, slot: int) -> bool:
    ranges = server.said("CLUSTER SLOTS") or ()
    return any(first <= slot <= last and master[1] == server.port for first, last, master, *_replicas in ranges)


def _pairs(answer: Any) -> dict[str, str]:
    if isinstance(answer, dict):
        return {_text(name): _text(value) for name, value in answer.items()}
    flat = [_text(item) for item in answer or ()]
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _wait(holds: Callable[[], bool], *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    for _ in itertools.count():
        if holds():
            return
        assert time.monotonic() < deadline, "it has not come true"
        time.sleep(0.02)
