"""What verifying costs a downstream service: CPU of one GET without a check, with a known token, with an unseen one.

Three servers with the same route, asked with the same requests. They share one process, pinned to one core where the
system can, the client to the others: how a process happens to lie in memory makes it slower or faster for as long as it
lives, and here that is the same for all three. Each is asked while the others have nothing to do. The rounds are short
and interleaved, so that all three see the same machine; its slow moments last longer than a round. The client never
sleeps: the server would pay for waking it, and the slower of two servers finds it asleep more often. The process is
started anew several times. A ratio is of all that the servers of one start have cost, and the median of the starts.
"""

import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import psutil
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from auth_service.devstack.process import accepts_connections, free_port
from auth_service.verifier import BearerMiddleware, requires
from auth_service.verifier.clock import SystemClock
from auth_service.verifier.testing import FakeIssuer

_GENERATIONS = 7
_ROUNDS = 24
_REQUESTS = 1600
_CONNECTIONS = 32
_TOKENS = 64
_KINDS = ("plain", "cached", "uncached")
# A cache this small has forgotten a token before its turn comes again.
_CACHE_SIZE = {"cached": 8192, "uncached": 2}


async def _hello(_request: Request) -> Response:
    return JSONResponse({"hello": "world"})


def _app(kind: str, issuer: FakeIssuer) -> Starlette:
    if kind == "plain":
        return Starlette(routes=[Route("/hello", _hello)])
    verifier = issuer.verifier(cache_size=_CACHE_SIZE[kind], clock=SystemClock())
    return Starlette(
        routes=[Route("/hello", requires("hello:read")(_hello))],
        lifespan=verifier.lifespan,
        middleware=[Middleware(BearerMiddleware, verifier=verifier)],
    )


async def serve(ports: Sequence[int]) -> None:
    """One server of each kind; prints the tokens that they take."""
    issuer = FakeIssuer(audience="bench")
    for number in range(_TOKENS):
        print(issuer.token(sub=f"user-{number}", sid=f"session-{number}", scope="hello:read profile", username="ada"))
    sys.stdout.flush()
    # Connections wait while the other servers have their rounds.
    idle = 120  # seconds
    configs = [
        uvicorn.Config(
            _app(kind, issuer),
            port=port,
            log_level="error",
            access_log=False,
            http="httptools",
            timeout_keep_alive=idle,
        )
        for kind, port in zip(_KINDS, ports, strict=True)
    ]
    await asyncio.gather(*(uvicorn.Server(config).serve() for config in configs))


class _Caller(asyncio.Protocol):
    """One connection that asks again as soon as it is answered: lean enough to keep a server busy all the time.

    A server that waits for its client does each request on a cold core, and the ratios are those of the cold core.
    """

    def __init__(self, requests: list[bytes]) -> None:
        self._requests = itertools.cycle(requests)
        self._left = 0
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not self._answer.endswith(b"}"):
            return  # the rest is under way
        if not self._answer.startswith(b"HTTP/1.1 200 OK"):
            self._done.set_exception(AssertionError(self._answer))
            return
        self._answer = b""
        self._left -= 1
        if self._left:
            self._transport.write(next(self._requests))
        else:
            self._done.set_result(None)

    async def call(self, times: int) -> None:
        """Ask so many times, one after the other."""
        self._left = times
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(next(self._requests))
        await self._done


class _Servers:
    """The process of the three servers, and what it has cost so far."""

    def __init__(self, core: set[int] | None) -> None:
        self.ports = [free_port() for _ in _KINDS]
        command = [sys.executable, "-m", "tests.benchmarks.verified_get", *map(str, self.ports)]
        self._popen = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._popen.stdout is not None
        self.tokens = [self._popen.stdout.readline().strip() for _ in range(_TOKENS)]
        if core:
            os.sched_setaffinity(self._popen.pid, core)
        self._process = psutil.Process(self._popen.pid)

    def cpu_seconds(self) -> float:
        # Where the kernel tells the time of each thread to the nanosecond; the usual figures are samples at its ticks.
        threads = [task / "schedstat" for task in Path(f"/proc/{self._process.pid}/task").glob("*")]
        if threads and all(thread.exists() for thread in threads):
            return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def stop(self) -> None:
        self._popen.terminate()
        self._popen.communicate(timeout=10)


class _Client:
    """Keeps one of the servers busy."""

    def __init__(self, servers: _Servers, port: int) -> None:
        self._servers = servers
        self._port = port
        self._callers: list[_Caller] = []

    async def connect(self) -> None:
        deadline = time.monotonic() + 10
        while not accepts_connections(self._port):
            assert time.monotonic() < deadline, "did not start"
            await asyncio.sleep(0.02)
        loop = asyncio.get_running_loop()
        requests = [
            b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %b\r\n\r\n" % token.encode()
            for token in self._servers.tokens
        ]
        for number in range(_CONNECTIONS):
            caller = _Caller(requests[number::_CONNECTIONS])
            await loop.create_connection(lambda caller=caller: caller, "127.0.0.1", self._port)  # type: ignore[misc]
            self._callers.append(caller)

    async def cost(self) -> float:
        """CPU microseconds of one request."""
        before = self._servers.cpu_seconds()
        await asyncio.gather(*(caller.call(_REQUESTS // _CONNECTIONS) for caller in self._callers))
        return (self._servers.cpu_seconds() - before) / _REQUESTS * 1e6


def _stay_awake(loop: asyncio.AbstractEventLoop) -> None:
    loop.call_soon(_stay_awake, loop)


async def measure(servers: _Servers) -> list[float]:
    """What one request cost, for each kind."""
    _stay_awake(asyncio.get_running_loop())
    clients = [_Client(servers, port) for port in servers.ports]
    for client in clients:
        await client.connect()
        await client.cost()  # warm
    rounds = [[await client.cost() for client in clients] for _ in range(_ROUNDS)]
    return [statistics.fmean(column) for column in zip(*rounds, strict=True)]


def main() -> None:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    pinned = len(cores) > 1
    if pinned:
        os.sched_setaffinity(0, set(cores[1:]))
    print(
        f"verified GET, one process started {_GENERATIONS} times, {_ROUNDS} rounds of {_REQUESTS} requests,"
        f" {_CONNECTIONS} connections"
    )
    costs: list[list[float]] = []
    for _ in range(_GENERATIONS):
        servers = _Servers({cores[0]} if pinned else None)
        try:
            costs.append(uvloop.run(measure(servers)))
        finally:
            servers.stop()
    for number, kind in enumerate(_KINDS):
        median = statistics.median(cost[number] for cost in costs)
        ratio = statistics.median(cost[number] / cost[0] for cost in costs)
        print(f"  {kind:<9}{median:6.1f} us of CPU   {ratio:.2f} x plain")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        uvloop.run(serve([int(port) for port in sys.argv[1:]]))
    else:
        main()
