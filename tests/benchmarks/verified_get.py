"""What verifying costs a downstream service: CPU of one GET without a check, with a known token, with an unseen one.

Three servers with the same route, one worker each, pinned to one core where the system can; the client to the others.
The rounds are short and interleaved, so that all three see the same machine; its slow moments last longer than a round.
The servers are started anew several times: how a process happens to lie in memory makes it slower or faster for as long
as it lives. A ratio is of all that three servers of one start have cost, and the median of the starts.
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


def serve(kind: str, port: int) -> None:
    """One server; prints the tokens that it takes."""
    issuer = FakeIssuer(audience="bench")
    if kind == "plain":
        app = Starlette(routes=[Route("/hello", _hello)])
    else:
        verifier = issuer.verifier(cache_size=_CACHE_SIZE[kind], clock=SystemClock())
        app = Starlette(
            routes=[Route("/hello", requires("hello:read")(_hello))],
            lifespan=verifier.lifespan,
            middleware=[Middleware(BearerMiddleware, verifier=verifier)],
        )
    for number in range(_TOKENS):
        print(issuer.token(sub=f"user-{number}", sid=f"session-{number}", scope="hello:read profile", username="ada"))
    sys.stdout.flush()
    # Connections wait while the other servers have their rounds.
    idle = 120  # seconds
    uvicorn.run(
        app, port=port, log_level="error", access_log=False, loop="uvloop", http="httptools", timeout_keep_alive=idle
    )


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


class _Served:
    """A server that runs, and what it has cost so far."""

    def __init__(self, kind: str, core: set[int] | None) -> None:
        self.kind = kind
        self.port = free_port()
        command = [sys.executable, "-m", "tests.benchmarks.verified_get", kind, str(self.port)]
        self._popen = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._popen.stdout is not None
        self._tokens = [self._popen.stdout.readline().strip() for _ in range(_TOKENS)]
        if core:
            os.sched_setaffinity(self._popen.pid, core)
        self._process = psutil.Process(self._popen.pid)
        self._callers: list[_Caller] = []

    async def connect(self) -> None:
        deadline = time.monotonic() + 10
        while not accepts_connections(self.port):
            assert time.monotonic() < deadline, "did not start"
            await asyncio.sleep(0.02)
        loop = asyncio.get_running_loop()
        requests = [
            b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %b\r\n\r\n" % token.encode()
            for token in self._tokens
        ]
        for number in range(_CONNECTIONS):
            caller = _Caller(requests[number::_CONNECTIONS])
            await loop.create_connection(lambda caller=caller: caller, "127.0.0.1", self.port)  # type: ignore[misc]
            self._callers.append(caller)

    async def cost(self) -> float:
        """CPU microseconds of one request."""
        before = self._cpu_seconds()
        await asyncio.gather(*(caller.call(_REQUESTS // _CONNECTIONS) for caller in self._callers))
        return (self._cpu_seconds() - before) / _REQUESTS * 1e6

    def _cpu_seconds(self) -> float:
        # Where the kernel tells the time of each thread to the nanosecond; the usual figures are samples at its ticks.
        threads = [task / "schedstat" for task in Path(f"/proc/{self._process.pid}/task").glob("*")]
        if threads and all(thread.exists() for thread in threads):
            return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def stop(self) -> None:
        self._popen.terminate()
        self._popen.communicate(timeout=10)


async def measure(servers: Sequence[_Served]) -> list[float]:
    """What one request cost, for each server."""
    for server in servers:
        await server.connect()
        await server.cost()  # warm
    rounds = [[await server.cost() for server in servers] for _ in range(_ROUNDS)]
    return [statistics.fmean(column) for column in zip(*rounds, strict=True)]


def main() -> None:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    pinned = len(cores) > 1
    if pinned:
        os.sched_setaffinity(0, set(cores[1:]))
    print(
        f"verified GET, one worker started {_GENERATIONS} times, {_ROUNDS} rounds of {_REQUESTS} requests,"
        f" {_CONNECTIONS} connections"
    )
    costs: list[list[float]] = []
    for _ in range(_GENERATIONS):
        servers = [_Served(kind, {cores[0]} if pinned else None) for kind in _KINDS]
        try:
            costs.append(uvloop.run(measure(servers)))
        finally:
            for server in servers:
                server.stop()
    for number, kind in enumerate(_KINDS):
        median = statistics.median(cost[number] for cost in costs)
        ratio = statistics.median(cost[number] / cost[0] for cost in costs)
        print(f"  {kind:<9}{median:6.1f} us of CPU   {ratio:.2f} x plain")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        serve(sys.argv[1], int(sys.argv[2]))
    else:
        main()
