"""The clients of the revocation feed: thousands of them, some that do not read, and how they are sent away."""

import asyncio
import json
import resource
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx2
import psutil
import pytest

from auth_service.revocation import journal
from auth_service.settings import Settings
from tests.support.feed import EVENT_STREAM, Users, metric_is, named, open_feed, until, until_true, users_of
from tests.support.processes import ServedProcess, served
from tests.support.service import problem

MakeSettings = Callable[..., Settings]


@pytest.fixture(scope="module", autouse=True)
def _many_files() -> Iterator[None]:
    """Thousands of connections need more descriptors than a shell gives; the processes started here inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 10_000)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Many clients, slow clients, and the end.


class _LeanClient(asyncio.Protocol):
    """One of thousands: notes when each text that is looked for came, and keeps nothing else."""

    def __init__(self, awaited: dict[bytes, list[float]]) -> None:
        self._awaited = awaited
        self._rest = b""
        self.received = b""
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(b"GET /revocations HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        self.received = (self.received + data)[-600:]
        if b"event: revoke" in data:
            now = time.monotonic()
            for text, moments in self._awaited.items():
                if text in data:
                    moments.append(now)

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


@asynccontextmanager
async def _crowd(
    process: ServedProcess, count: int, awaited: dict[bytes, list[float]], *, addresses: int = 20
) -> AsyncIterator[list[_LeanClient]]:
    """`count` open feeds from several loopback addresses, all live."""
    loop = asyncio.get_running_loop()
    clients: list[_LeanClient] = []
    try:
        for start in range(0, count, 100):
            made = await asyncio.gather(
                *(
                    loop.create_connection(
                        lambda: _LeanClient(awaited),
                        "127.0.0.1",
                        process.port,
                        local_addr=(f"127.0.1.{number % addresses + 1}", 0),
                    )
                    for number in range(start, min(start + 100, count))
                )
            )
            clients += [client for _, client in made]
        await until_true(lambda: all(b"event: beat" in client.received for client in clients))
        yield clients
    finally:
        for client in clients:
            client.transport.abort()
        await asyncio.gather(*(client.closed for client in clients))


def _never_reads(process: ServedProcess) -> socket.socket:
    """Asks for the feed and does not read it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", process.port))
    connection.sendall(b"GET /revocations HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
    return connection


async def _revoke_many(settings: Settings, count: int, *, first: int = 0) -> None:
    """As if so many sessions had ended at once, in another process and without Redis."""
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    await connection.execute(
        "INSERT INTO revocations (kind, claim, reason, revoked_at, expires_at)"
        " SELECT 's', 'many-' || n, 'logout', clock_timestamp(), clock_timestamp() + $3::interval"
        " FROM generate_series($1::int, $2::int) AS n",
        first,
        first + count - 1,
        journal.RETENTION,
    )
    await connection.close()


async def test_2000_clients_hear_of_a_logout_in_time_beside_one_that_never_reads(
    settings: MakeSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = settings()
    awaited: dict[bytes, list[float]] = {}
    await _revoke_many(made, 6000)  # more than the buffers of one who does not read take in
    with served(made, tmp_path, count=2) as [elsewhere, process]:
        server = psutil.Process(process.popen.pid)
        async with users_of(elsewhere) as users, _crowd(process, 2000, awaited) as crowd:
            quiet = await _latencies(users, crowd, awaited, count=8)
            memory = server.memory_info().rss
            stuck = _never_reads(process)
            beside = await _latencies(users, crowd, awaited, count=8)
            await until_true(lambda: "stuck_reader_aborted" in process.log.read_text())
            stuck.close()
            grown = (server.memory_info().rss - memory) / 1e6
            async with httpx2.AsyncClient() as http:
                await until(lambda: metric_is(http, process, "auth_revocation_feed_clients", 2000))
            assert not any(client.closed.done() for client in crowd)
    with capsys.disabled():
        print(  # noqa: T201
            f"\n2,000 clients of another process hear of a logout: p99 {quiet * 1000:.0f} ms; beside one that never"
            f" reads {beside * 1000:.0f} ms; the process grew by {grown:.0f} MB"
        )
    # Loose, since all of it shares a machine: a reader that held up the others would do so for five seconds.
    assert beside < 2 * quiet + 1
    assert grown < 20


async def _latencies(users: Users, crowd: list[_LeanClient], awaited: dict[bytes, list[float]], *, count: int) -> float:
    """The 99th percentile, over all clients and `count` logouts, of the seconds from the answer to the news."""
    delays: list[float] = []
    for _ in range(count):
        user = await users.register()
        moments = awaited.setdefault(named(user).encode(), [])
        _, answered = await users.logout(user)
        await until_true(lambda moments=moments: len(moments) == len(crowd))  # type: ignore[misc]
        delays += [max(0.0, moment - answered) for moment in moments]
    return sorted(delays)[len(delays) * 99 // 100]


async def test_readers_that_never_read_are_aborted_and_cost_no_memory(settings: MakeSettings, tmp_path: Path) -> None:
    made = settings()
    with served(made, tmp_path) as [process]:
        server = psutil.Process(process.popen.pid)
        async with open_feed(process.url) as feed, httpx2.AsyncClient() as http:
            stuck = [_never_reads(process) for _ in range(60)]
            await until(lambda: metric_is(http, process, "auth_revocation_feed_clients", 61))
            before = server.memory_info().rss
            # 4.5 MB for each of them: 270 MB, were it kept.
            await _revoke_many(made, 100_000)
            peak = before

            def told() -> bool:
                nonlocal peak
                peak = max(peak, server.memory_info().rss)
                return len(feed.ids) == 100_000

            await until_true(told)
            await until(lambda: metric_is(http, process, "auth_revocation_feed_clients", 1))
            assert (peak - before) / 1e6 < 150
            assert process.log.read_text().count("stuck_reader_aborted") == 60
            await feed.until_beats(1)
            for connection in stuck:
                connection.close()


async def test_a_slow_reader_of_the_json_is_not_taken_for_a_stuck_one(settings: MakeSettings, tmp_path: Path) -> None:
    made = settings()
    await _revoke_many(made, 20_000)
    with served(made, tmp_path) as [process]:
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", process.port))
        reader.sendall(b"GET /revocations HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = bytearray()
        began = time.monotonic()
        # 900 KB in some eight seconds: more than what a stuck reader is given.
        while data := await asyncio.to_thread(reader.recv, 65_536):
            received += data
            await asyncio.sleep(max(0.0, began + len(received) / 110_000 - time.monotonic()))
        reader.close()
        assert time.monotonic() - began > 6
        assert len(json.loads(received.partition(b"\r\n\r\n")[2])["revocations"]) == 20_000


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGTERM, 2)])
async def test_a_stop_says_bye_to_every_client_and_does_not_wait_for_them(
    settings: MakeSettings, tmp_path: Path, number: signal.Signals, workers: int
) -> None:
    with served(settings(workers=workers), tmp_path) as [process]:
        async with _crowd(process, 500, {}) as crowd:
            began = time.monotonic()
            process.send(number)
            code = await asyncio.to_thread(process.popen.wait, 15)
            seconds = time.monotonic() - began
            assert code == 0
            assert seconds < (2 if workers == 1 else 4), seconds
            await asyncio.gather(*(client.closed for client in crowd))
            for client in crowd:
                # The stream is whole: bye, then the chunk that ends it.
                assert client.received.endswith(b"event: bye\ndata: {}\n\n\r\n0\r\n\r\n"), client.received[-80:]
        log = process.log.read_text()
        assert "Traceback" not in log
        assert "unexpected_error" not in log
        assert '"level": "error"' not in log


async def test_one_address_has_a_quarter_of_the_connections_for_streams(settings: MakeSettings, tmp_path: Path) -> None:
    with served(settings(max_connections=40), tmp_path) as [process]:
        async with _crowd(process, 10, {}, addresses=1), httpx2.AsyncClient() as http:
            elsewhere = httpx2.AsyncHTTPTransport(local_address="127.0.1.1")
            async with httpx2.AsyncClient(transport=elsewhere) as same:
                assert problem(await same.get(f"{process.url}/revocations", headers=EVENT_STREAM)) == (
                    429,
                    "too_many_attempts",
                )
            assert (await http.get(f"{process.url}/.well-known/jwks.json")).status_code == 200


async def test_one_address_has_2500_streams_and_takes_none_from_another(settings: MakeSettings, tmp_path: Path) -> None:
    with served(settings(), tmp_path) as [process]:
        async with _crowd(process, 2500, {}, addresses=1):
            for address, status in (("127.0.1.1", 429), ("127.0.1.2", 200)):
                transport = httpx2.AsyncHTTPTransport(local_address=address)
                async with (
                    httpx2.AsyncClient(transport=transport) as http,
                    http.stream("GET", f"{process.url}/revocations", headers=EVENT_STREAM) as answer,
                ):
                    assert answer.status_code == status
                    if status == 429:
                        await answer.aread()
                        assert problem(answer) == (429, "too_many_attempts")
                        assert int(answer.headers["retry-after"]) >= 1
