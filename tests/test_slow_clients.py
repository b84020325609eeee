"""500 slow connections against one worker: all are closed in time, and who asks properly hardly notices."""

import asyncio
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from auth_service.settings import Settings
from tests.support.feed import metric, until
from tests.support.load import Connection
from tests.support.processes import ServedProcess, served
from tests.support.service import PASSWORD

_EACH = 100
_CLOSED_IN = 13.0  # seconds: five for what is awaited, five for a reader to show that it reads, and a busy machine
_ROUNDS = 3
_REQUESTS = 150  # a round

_GET = b"GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\n"
_BODY = b"POST /user/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
_LARGE = b"GET /docs/swagger-ui.js HTTP/1.1\r\nHost: x\r\n\r\n"

_KINDS: dict[str, tuple[bytes, bytes, bool]] = {
    # What is sent first, what is sent then once a second, and whether the answers are read.
    "silent": (b"", b"", True),
    "half a head": (_GET, b"", True),
    "half a body": (_BODY, b"", True),
    "a byte a second": (_GET + b"A: ", b"b", True),
    "a reader who does not read": (_LARGE, b"", False),
}


class _Slow(asyncio.Protocol):
    """Knows when it is closed."""

    def __init__(self) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


class _Crowd:
    """500 slow connections. Who is closed comes back at once, for as long as `comes_back` is true."""

    def __init__(self, process: ServedProcess) -> None:
        self.comes_back = True
        self.lives: dict[str, list[float]] = {kind: [] for kind in _KINDS}
        """Seconds from opening to being closed. Of those who do not read there are none: they do not see the end."""
        self._port = process.port
        self._members = [asyncio.create_task(self._hold(kind)) for kind in _KINDS for _ in range(_EACH)]

    async def all_closed(self) -> None:
        """Wait until nobody is left who would see that they are closed."""
        self.comes_back = False
        await asyncio.wait(self._members[:-_EACH])

    async def leave(self) -> None:
        for member in self._members:
            member.cancel()
        await asyncio.gather(*self._members, return_exceptions=True)

    async def _hold(self, kind: str) -> None:
        first, drip, reads = _KINDS[kind]
        loop = asyncio.get_running_loop()
        while self.comes_back:
            end = socket.socket()
            if not reads:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            end.setblocking(False)
            await loop.sock_connect(end, ("127.0.0.1", self._port))
            transport, slow = await loop.create_connection(_Slow, sock=end)
            began = loop.time()
            try:
                transport.write(first)
                if not reads:
                    transport.pause_reading()
                while not (await asyncio.wait({slow.closed}, timeout=1))[0]:
                    transport.write(drip)
            finally:
                transport.abort()
            self.lives[kind].append(loop.time() - began)


class _GoodTraffic:
    """A few clients that refresh and ask for the keys, and a probe on the internal port."""

    def __init__(self, process: ServedProcess, connections: list[Connection], token: str) -> None:
        self._process = process
        self._connections = connections
        self._token = token

    async def p99(self) -> float:
        """The 99th percentile, in seconds, of one round."""
        times: list[float] = []

        async def refreshes(connection: Connection) -> None:
            for _ in range(_REQUESTS // len(self._connections)):
                began = time.perf_counter()
                status, _ = await connection.post("/user/refresh-token", {"refresh_token": self._token})
                times.append(time.perf_counter() - began)
                assert status == 200

        async with httpx2.AsyncClient() as http:
            busy = asyncio.gather(*map(refreshes, self._connections))
            for path in ("healthz", "readyz", "metrics"):
                assert (await http.get(f"{self._process.internal_url}/{path}", timeout=2)).status_code == 200
            await busy
        return sorted(times)[len(times) * 99 // 100]


async def _all_there(http: httpx2.AsyncClient, process: ServedProcess) -> bool:
    return await metric(http, process, "auth_public_connections") > 4.5 * _EACH


async def _none_there(http: httpx2.AsyncClient, process: ServedProcess) -> bool:
    return await metric(http, process, "auth_public_connections") == 0  # those of the good traffic idle, and end too


@pytest.fixture
def process(settings: Callable[..., Settings], tmp_path: Path) -> Iterator[ServedProcess]:
    with served(settings(), tmp_path) as [process]:
        yield process


async def test_500_slow_connections_are_closed_in_time_and_hold_up_nobody(
    process: ServedProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    connections = [await Connection.open(process.port) for _ in range(3)]
    _, body = await connections[0].post(
        "/user/register", {"username": "ada", "email": "ada@example.com", "password": PASSWORD}
    )
    traffic = _GoodTraffic(process, connections, body["refresh_token"])
    await traffic.p99()  # warm
    quiet = [await traffic.p99() for _ in range(_ROUNDS)]
    crowd = _Crowd(process)
    try:
        async with httpx2.AsyncClient() as http:
            await until(lambda: _all_there(http, process), seconds=20)
            beside = [await traffic.p99() for _ in range(_ROUNDS)]
            await asyncio.wait_for(crowd.all_closed(), 2 * _CLOSED_IN)
            # Only the server knows of those who do not read.
            await until(lambda: _none_there(http, process), seconds=20)
        cut = process.log.read_text().count("stuck_reader_aborted")
    finally:
        await crowd.leave()
    with capsys.disabled():
        print(  # noqa: T201
            f"\n500 slow connections: p99 of a refresh {statistics.median(quiet) * 1000:.0f} ms before,"
            f" {statistics.median(beside) * 1000:.0f} ms beside them; closed after at most "
            + ", ".join(f"{max(lives):.1f} s ({kind})" for kind, lives in crowd.lives.items() if lives)
        )
    for connection in connections:
        await connection.close()
    assert cut == _EACH
    for kind, lives in crowd.lives.items():
        assert kind == "a reader who does not read" or len(lives) >= _EACH
        assert all(4 < seconds < _CLOSED_IN for seconds in lives), (kind, max(lives))
    # Medians of rounds, and a little more than twice: both ends of it share a machine with other tests.
    assert statistics.median(beside) < 2 * statistics.median(quiet) + 0.1
    assert "Traceback" not in process.log.read_text()
