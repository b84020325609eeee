"""What verifying costs a downstream service: CPU of one GET without a check, with a known token, with an unseen one.

Three servers with the same route, one worker each, pinned to one core where the system can; the client to the others.
The rounds are interleaved, so that all three see the same machine.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

import psutil
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from auth_service.devstack.process import free_port
from auth_service.verifier import BearerMiddleware, requires
from auth_service.verifier.clock import SystemClock
from auth_service.verifier.testing import FakeIssuer
from tests.support.load import Connection

_ROUNDS = 9
_REQUESTS = 6000
_CONNECTIONS = 8
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
    uvicorn.run(app, port=port, log_level="error", access_log=False, loop="uvloop", http="httptools")


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
        self.connections: list[Connection] = []

    async def connect(self) -> None:
        deadline = time.monotonic() + 10
        while not self.connections:
            try:
                self.connections = [await Connection.open(self.port) for _ in range(_CONNECTIONS)]
            except OSError:
                assert time.monotonic() < deadline, "did not start"
                await asyncio.sleep(0.02)

    async def cost(self) -> float:
        """CPU microseconds of one request."""
        before = self._process.cpu_times()

        async def use(number: int, connection: Connection) -> None:
            for index in range(number, _REQUESTS, _CONNECTIONS):
                status, _ = await connection.get("/hello", self._tokens[index % _TOKENS])
                assert status == 200, status

        await asyncio.gather(*(use(number, connection) for number, connection in enumerate(self.connections)))
        after = self._process.cpu_times()
        return (after.user + after.system - before.user - before.system) / _REQUESTS * 1e6

    def stop(self) -> None:
        self._popen.terminate()
        self._popen.communicate(timeout=10)


async def measure(servers: Sequence[_Served]) -> None:
    for server in servers:
        await server.connect()
        await server.cost()  # warm
    rounds = [[await server.cost() for server in servers] for _ in range(_ROUNDS)]
    medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
    for server, median in zip(servers, medians, strict=True):
        ratio = statistics.median(row[servers.index(server)] / row[0] for row in rounds)
        print(f"  {server.kind:<9}{median:6.1f} us of CPU   {ratio:.2f} x plain")


def main() -> None:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    pinned = len(cores) > 1
    servers = [_Served(kind, {cores[0]} if pinned else None) for kind in _KINDS]
    try:
        if pinned:
            os.sched_setaffinity(0, set(cores[1:]))
        print(f"verified GET, one worker, {_REQUESTS} requests a round, {_ROUNDS} rounds, {_CONNECTIONS} connections")
        asyncio.run(measure(servers))
    finally:
        for server in servers:
            server.stop()


if __name__ == "__main__":
    if len(sys.argv) == 3:
        serve(sys.argv[1], int(sys.argv[2]))
    else:
        main()
