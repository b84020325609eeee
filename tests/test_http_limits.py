"""The limits of one connection: what is no HTTP, what is too large or too slow, and who comes when it is full."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from auth_service.settings import Settings
from tests.support.feed import metric_is, open_feed, until
from tests.support.processes import ServedProcess, served
from tests.support.raw_http import RawAnswer, answered, sent
from tests.support.stores import Stores

MakeSettings = Callable[..., Settings]

_DATA = json.loads((Path(__file__).parent / "data" / "malformed_http.json").read_text("utf-8"))
_LIMIT = 16 * 1024
_PATIENCE = 5.0
_GET = b"GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\n"
_POST = b"POST /user/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n\r\n"
_LAST = b"Connection: close\r\n\r\n"
_FEED = b"GET /revocations HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"


@pytest.fixture(scope="module")
def process(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    """One process for all tests here. In the end it must have told no tale of a fault, and hold no connection."""
    url = stores.new_database()
    with served(stores.settings(database_url=url), tmp_path_factory.mktemp("limits")) as [process]:
        yield process
        metrics = httpx2.get(f"{process.internal_url}/metrics").text
        assert re.search(r"^auth_public_connections 0\.0$", metrics, re.MULTILINE)
    for line in map(json.loads, process.log.read_text().splitlines()):
        assert line["level"] in ("info", "debug"), line
    stores.drop(url)


def _is_refusal(answer: RawAnswer, status: int) -> None:
    assert answer.status == status
    body = json.loads(answer.body)
    assert body["status"] == status
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", answer.headers["x-request-id"])
    wanted = {
        "content-type": "application/problem+json",
        "connection": "close",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
        "strict-transport-security": "max-age=31536000; includeSubDomains",
    }
    assert answer.headers.items() >= wanted.items()


@pytest.mark.parametrize("kind", _DATA["refused"])
async def test_malformed_http_is_refused_and_the_connection_closed(process: ServedProcess, kind: str) -> None:
    # A second request follows, to show that nothing that comes after is taken for one.
    after = _GET + b"\r\n"
    for port in (process.port, process.internal_port):
        for text in _DATA["refused"][kind].values():
            [answer] = await answered(port, text.encode("latin-1") + after)
            _is_refusal(answer, 400)


@pytest.mark.parametrize("kind", ["chunks", "headers", "lengths", "transfer encodings"])
async def test_malformed_http_that_comes_in_pieces_is_refused_too(process: ServedProcess, kind: str) -> None:
    async def in_pieces(text: str) -> list[RawAnswer]:
        reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
        pieces = re.findall(rb".{1,23}", text.encode("latin-1"), re.DOTALL)
        received = b""
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.002)  # so that they come one by one
            async with asyncio.timeout(10):
                received = await reader.read()
        except ConnectionError:
            received += await reader.read()
        finally:
            writer.transport.abort()
        return RawAnswer.all_in(received)

    cases = _DATA["refused"][kind]
    for about, answers in zip(cases, await asyncio.gather(*map(in_pieces, cases.values())), strict=True):
        assert [answer.status for answer in answers] == [400], about


async def test_what_is_unusual_but_well_formed_is_taken(process: ServedProcess) -> None:
    for about, (text, status) in _DATA["taken"].items():
        request = text.encode("latin-1") + (b"" if text.endswith("\r\n\r\n") else _LAST)
        [answer] = await answered(process.port, request)
        assert answer.status == status, about


async def test_a_request_in_well_formed_chunks_is_taken(process: ServedProcess) -> None:
    body = b'{"refresh_token": "x"}'
    chunks = b"".join(b"%x;name=value\r\n%c\r\n" % (1, byte) for byte in body)
    head = _CHUNKED.replace(b"/user/login", b"/user/refresh-token")
    [answer] = await answered(process.port, head.replace(b"\r\n\r\n", b"\r\n" + _LAST) + chunks + b"0\r\n\r\n")
    assert answer.status == 401


@pytest.mark.parametrize("pause", [0.0, 0.1], ids=["at once", "later"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
async def test_the_body_of_a_request_that_offers_an_upgrade_is_its_body_and_no_request(
    process: ServedProcess, *, chunked: bool, pause: float
) -> None:
    body = b"GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\n\r\n"
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    sent_body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
    writer.write(_POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n%b\r\n\r\n" % framing)
    await asyncio.sleep(pause)  # so that the body comes in a packet of its own
    writer.write(sent_body)
    # And one after it, which shows that the connection is still understood.
    await asyncio.sleep(pause)
    head = await reader.readuntil(b"\r\n\r\n")
    refusal = json.loads(await reader.readexactly(int(re.findall(rb"content-length: (\d+)", head.lower())[0])))
    assert (refusal["status"], refusal["code"]) == (400, "invalid_request"), "what came is read, and is no JSON"
    writer.write(_GET + _LAST)
    async with asyncio.timeout(10):
        [answer] = RawAnswer.all_in(await reader.read())
    assert answer.status == 200
    writer.close()


async def test_an_upgrade_that_is_not_offered_is_ignored(process: ServedProcess) -> None:
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
    for end in (upgrade, upgrade, _LAST):
        writer.write(_GET + end)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        [answer] = RawAnswer.all_in(head + await reader.readexactly(int(head.split(b"content-length: ")[1].split()[0])))
        assert answer.status == 200
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


async def test_a_head_of_more_than_16_kib_is_refused(process: ServedProcess) -> None:
    for about, data in {
        "a value without an end": _GET + b"A: " + b"b" * 200_000,
        "a name without an end": _GET + b"a" * 200_000,
        "a path without an end": b"GET /" + b"a" * 200_000,
        "one value": _GET + b"A: " + b"b" * _LIMIT + b"\r\n\r\n",
        "a path": b"GET /" + b"a" * _LIMIT + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        "many headers": _GET + b"A: b\r\n" * 4_000 + b"\r\n",
        "empty lines": b"\r\n" * _LIMIT,
    }.items():
        [answer] = await answered(process.port, data)
        assert answer.status == 431, about
        _is_refusal(answer, 431)
    [answer] = await answered(process.port, _GET + b"A: " + b"b" * (_LIMIT - 200) + b"\r\n" + _LAST)
    assert answer.status == 200


async def test_the_connection_of_a_body_over_the_limit_is_closed(process: ServedProcess) -> None:
    chunk = b"3e8\r\n" + b" " * 1_000 + b"\r\n"
    get = _GET + b"Transfer-Encoding: chunked\r\n\r\n"
    for about, data, status in (
        ("a length", _POST + b"Content-Length: 1000000\r\n\r\n" + b" " * 1_000_000, 413),
        ("a length alone", _POST + b"Content-Length: 1000000\r\n\r\n", 413),
        ("chunks", _CHUNKED + chunk * 1_000, 413),
        ("one endless chunk", _CHUNKED + b"7FFFFFFFFFFFFFFF\r\n" + b" " * 1_000_000, 413),
        ("an endless extension", _CHUNKED + b"2;" + b"a" * 1_000_000, 413),
        ("an endless size", _CHUNKED + b"0" * 1_000_000, 413),
        ("where none is read", get + chunk * 1_000, 200),
    ):
        began = time.monotonic()
        [answer] = await answered(process.port, data)
        assert answer.status == status, about
        if status == 413:
            assert answer.headers["connection"] == "close", about
            assert json.loads(answer.body)["code"] == "payload_too_large"
        assert time.monotonic() - began < _PATIENCE - 1, about


async def test_requests_sent_before_the_answer_do_not_queue(process: ServedProcess) -> None:
    answers = await answered(process.port, (_GET + b"\r\n") * 10_000)
    assert [(answer.status, answer.headers["connection"]) for answer in answers] == [(200, "close")]


async def test_a_feed_with_another_request_behind_it_ends_with_its_connection(process: ServedProcess) -> None:
    async with httpx2.AsyncClient() as http:
        for behind in (_GET + b"\r\n", b"garbage\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
            writer.write(_FEED + b"\r\n" + behind)
            await asyncio.wait_for(reader.readuntil(b"event: beat"), 10)
            assert await metric_is(http, process, "auth_revocation_feed_clients", 1)
            writer.transport.abort()
            await until(lambda: metric_is(http, process, "auth_revocation_feed_clients", 0))


@asynccontextmanager
async def _opened(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _closed_after(port: int, first: bytes, *, drip: bytes = b"") -> tuple[float, bytes]:
    """Sends `first`, then a byte of `drip` five times a second: seconds until it was closed, and what was answered."""
    async with _opened(port) as (reader, writer), asyncio.timeout(15):
        began = time.monotonic()
        writer.write(first)
        answer = asyncio.create_task(reader.read())
        while not answer.done():
            await asyncio.wait({answer}, timeout=0.2)
            if drip and not answer.done():
                byte, drip = drip[:1], drip[1:] + drip[:1]
                writer.write(byte)
        return time.monotonic() - began, b"" if answer.exception() else answer.result()


async def _patient(port: int) -> bytes:
    """A head has its time from its first byte: what is answered to one that began late, and took a while."""
    async with _opened(port) as (reader, writer):
        await asyncio.sleep(_PATIENCE - 1)  # the time is what this is about
        writer.write(_GET)
        await asyncio.sleep(2)
        writer.write(b"\r\n")
        return await asyncio.wait_for(reader.readline(), 10)


async def test_who_is_slow_is_closed_in_time_on_both_ports_and_a_feed_is_not(process: ServedProcess) -> None:
    half_body = _POST + b"Content-Length: 100\r\n\r\n{"
    cases: dict[str, tuple[bytes, bytes, int | None]] = {
        "silent": (b"", b"", None),
        "empty lines, one after the other": (b"", b"\r\n", None),
        "half a head": (_GET, b"", 408),
        "a head, byte by byte": (b"", _GET + b"A: " + b"b" * 100, 408),
        "half a body": (half_body, b"", 408),
        "no body": (_POST + b"Content-Length: 100\r\n\r\n", b"", 408),
        "a body, byte by byte": (half_body, b" ", 408),
        "a chunk, byte by byte": (_CHUNKED + b"ff\r\n", b" ", 408),
        "the size of a chunk, byte by byte": (_CHUNKED, b"0", 408),
        "idle after an answer": (_GET + b"\r\n", b"", 200),
        "empty lines after an answer": (_GET + b"\r\n", b"\r\n", 200),
        "a body that nobody reads": (_GET + b"Content-Length: 100\r\n\r\n", b" ", 200),
    }
    runs = [
        (about, status, port, asyncio.create_task(_closed_after(port, first, drip=drip)))
        for about, (first, drip, status) in cases.items()
        for port in (process.port, process.internal_port)
    ]
    async with open_feed(process.url) as feed:
        assert (await _patient(process.port)).startswith(b"HTTP/1.1 200 ")
        await asyncio.wait([run for *_, run in runs])
        await feed.until_beats(1)
    for about, status, port, run in runs:
        seconds, data = await run
        assert _PATIENCE - 0.5 < seconds < _PATIENCE + 3, (about, seconds)
        if port == process.port:
            statuses = [answer.status for answer in RawAnswer.all_in(data)]
            assert statuses == ([] if status is None else [status]), about


async def test_a_full_public_port_says_so_and_leaves_the_internal_one_alone(
    settings: MakeSettings, tmp_path: Path
) -> None:
    with served(settings(max_connections=20), tmp_path) as [process]:
        async with httpx2.AsyncClient() as http:
            async with open_feed(process.url):
                held = [await asyncio.open_connection("127.0.0.1", process.port) for _ in range(19)]
                await until(lambda: metric_is(http, process, "auth_public_connections", 20))
                for _ in range(3):
                    [answer] = await answered(process.port, b"")
                    _is_refusal(answer, 503)
                    assert int(answer.headers["retry-after"]) >= 1
                probes = [await asyncio.open_connection("127.0.0.1", process.internal_port) for _ in range(30)]
                for _, writer in probes:
                    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                for reader, _ in probes:
                    assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 200 ")
                metrics = (await http.get(f"{process.internal_url}/metrics")).text
                assert 'auth_connections_cut_total{reason="too_many_connections"} 3.0' in metrics
                held[0][1].close()
                await until(lambda: metric_is(http, process, "auth_public_connections", 19))
                [answer] = await answered(process.port, _GET + _LAST)
                assert answer.status == 200
                for _, writer in [*held, *probes]:
                    writer.transport.abort()
            await until(lambda: metric_is(http, process, "auth_public_connections", 0))


async def test_refusals_in_a_row_leave_nothing_behind(process: ServedProcess) -> None:
    before = len(process.log.read_text().splitlines())
    await asyncio.gather(*(sent(process.port, b"\0" * 10) for _ in range(50)))
    lines = [json.loads(line) for line in process.log.read_text().splitlines()[before:]]
    assert [(line["event"], line["reason"]) for line in lines] == [("connection_cut", "malformed")] * 50
