"""The server as a process: two ports, probes, metrics, one worker or several, and how it stops."""

import asyncio
import re
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from auth_service.settings import Settings
from tests.support.load import Connection
from tests.support.processes import ServedProcess, served
from tests.support.service import PASSWORD
from tests.support.tokens import generation_of

MakeSettings = Callable[..., Settings]


def _registration(name: str) -> dict[str, str]:
    return {"username": name, "email": f"{name}@example.com", "password": PASSWORD}


@pytest.mark.parametrize("workers", [1, 2])
async def test_each_port_serves_its_own(settings: MakeSettings, tmp_path: Path, workers: int) -> None:
    with served(settings(workers=workers), tmp_path) as [process]:
        async with httpx2.AsyncClient() as http:
            for path in ("/healthz", "/readyz", "/startupz", "/metrics"):
                assert (await http.get(process.internal_url + path)).status_code == 200
                assert (await http.get(process.url + path)).status_code == 404
            assert (await http.get(process.url + "/.well-known/jwks.json")).status_code == 200
            assert (await http.get(process.internal_url + "/.well-known/jwks.json")).status_code == 404
            for path in ("/user/login", "/user/register"):
                assert (await http.post(process.internal_url + path, json={})).status_code == 404
            # What a client says of itself does not choose the port.
            spoofed = {"Host": f"127.0.0.1:{process.internal_port}", "X-Forwarded-Port": str(process.internal_port)}
            assert (await http.get(process.url + "/metrics", headers=spoofed)).status_code == 404


async def test_metrics_count_over_all_workers_in_both_formats(settings: MakeSettings, tmp_path: Path) -> None:
    with served(settings(workers=2), tmp_path) as [process]:
        async with httpx2.AsyncClient() as http:
            for number in range(12):
                # A connection each, so that both workers get some.
                async with httpx2.AsyncClient() as caller:
                    body = _registration(f"user{number}")
                    assert (await caller.post(f"{process.url}/user/register", json=body)).status_code == 201
            for _ in range(3):
                plain = await http.get(f"{process.internal_url}/metrics")
                assert plain.headers["content-type"].startswith("text/plain")
                families = {family.name: family for family in parse_text(plain.text)}
                issued = {
                    (sample.labels["grant"], sample.labels["kind"]): sample.value
                    for sample in families["auth_tokens_issued"].samples
                    if sample.name.endswith("_total") and sample.value
                }
                assert issued == {("register", "access"): 12, ("register", "refresh"): 12}
            accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
            openmetrics = await http.get(f"{process.internal_url}/metrics", headers=accept)
            assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
            assert "auth_http_requests" in {family.name for family in parse_openmetrics(openmetrics.text)}  # type: ignore[no-untyped-call]


async def test_no_label_is_made_of_input(settings: MakeSettings, tmp_path: Path) -> None:
    with served(settings(), tmp_path) as [process]:
        async with httpx2.AsyncClient() as http:
            await http.get(f"{process.url}/CANARY")
            await http.request("CANARY", f"{process.url}/user/me")
            await http.delete(f"{process.url}/user/sessions/CANARY")
            text = (await http.get(f"{process.internal_url}/metrics")).text
    assert "CANARY" not in text
    assert 'route="/user/sessions/{id}"' in text


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_stop_finishes_what_is_in_flight_and_loses_nothing(
    settings: MakeSettings, tmp_path: Path, workers: int
) -> None:
    made = settings(workers=workers)
    with served(made, tmp_path) as [process]:
        connections = [await Connection.open(process.port) for _ in range(16)]
        status, body = await connections[0].post("/user/register", _registration("ada"))
        assert status == 201
        _, refreshed = await connections[0].post("/user/refresh-token", {"refresh_token": body["refresh_token"]})
        # Each waits for a password hash, or for those that do: they are in flight when the signal comes.
        credentials = {"email": "ada@example.com", "password": PASSWORD}
        logins = [asyncio.create_task(connection.post("/user/login", credentials)) for connection in connections]
        await _until_in_flight(process, workers)
        process.send(signal.SIGTERM)
        answers = await asyncio.gather(*logins)
        assert {status for status, _ in answers} == {200}
        code = await asyncio.to_thread(process.stop)
        assert code == 0
        assert "Traceback" not in process.log.read_text()
        for connection in connections:
            await connection.close()
    # The checkpoint was written on the way out: it alone knows the generation now, and nobody is logged out.
    with served(made, tmp_path) as [process]:
        async with httpx2.AsyncClient() as http:
            answer = await http.post(
                f"{process.url}/user/refresh-token", json={"refresh_token": refreshed["refresh_token"]}
            )
            assert answer.status_code == 200
            assert generation_of(answer.json()["refresh_token"]) == 2


@pytest.mark.parametrize(
    ("reused", "workers"), [(False, 1), (True, 1), (False, 2)], ids=["a connection each", "connections kept", "workers"]
)
async def test_whoever_is_let_in_while_it_stops_is_answered(
    settings: MakeSettings, tmp_path: Path, reused: bool, workers: int
) -> None:
    """A proxy may send a request elsewhere only if the connection was refused: after that it may have been done."""
    outcomes = Counter[str]()
    with served(settings(workers=workers), tmp_path) as [process]:
        callers = [asyncio.create_task(_knock(process.port, outcomes, reused=reused)) for _ in range(24)]
        async with asyncio.timeout(30):
            while outcomes["answered"] < 500:  # noqa: ASYNC110 — the callers count
                await asyncio.sleep(0.01)
            process.send(signal.SIGTERM)
            await asyncio.gather(*callers)
    print(dict(outcomes))  # noqa: T201
    assert outcomes.keys() == {"answered", "refused"}


async def _knock(port: int, outcomes: Counter[str], *, reused: bool) -> None:
    """Ask for something that changes things, again and again, until no connection is to be had."""
    closing = b"" if reused else b"Connection: close\r\n"
    request = b"POST /user/logout HTTP/1.1\r\nHost: x\r\n%bContent-Length: 0\r\n\r\n" % closing
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            outcomes["refused"] += 1
            return
        try:
            while True:
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
                outcomes["answered"] += 1
                if b"connection: close" in head.lower():
                    break
        except (ConnectionError, asyncio.IncompleteReadError) as exc:
            outcomes[type(exc).__name__] += 1
        finally:
            writer.close()


async def _until_in_flight(process: ServedProcess, workers: int) -> None:
    """Wait until some login has reached the hash: its thread burns CPU."""
    parent = psutil.Process(process.popen.pid)
    group = [parent, *parent.children(recursive=True)]
    assert len(group) > workers - 1
    before = sum(member.cpu_times().user for member in group)
    async with asyncio.timeout(10):
        while sum(member.cpu_times().user for member in group) - before < 0.03:  # noqa: ASYNC110 — another process
            await asyncio.sleep(0.005)


async def test_workers_whose_parent_is_killed_finish_what_is_in_flight_and_free_the_ports(
    settings: MakeSettings, tmp_path: Path
) -> None:
    with served(settings(workers=2), tmp_path) as [process]:
        workers = psutil.Process(process.popen.pid).children(recursive=True)
        assert await _status_in_flight(process, workers=2, then=process.popen.kill) == {200}
        _, left = await asyncio.to_thread(psutil.wait_procs, workers, timeout=25)
        for worker in left:
            worker.kill()
        assert left == []
        process.popen.wait()
        process.start()
        process.wait_until_started()


async def test_a_process_whose_terminal_is_gone_stops_as_it_does_when_asked(
    settings: MakeSettings, tmp_path: Path
) -> None:
    with served(settings(), tmp_path) as [process]:
        assert await _status_in_flight(process, workers=1, then=lambda: process.send(signal.SIGHUP)) == {200}
        assert await asyncio.to_thread(process.popen.wait, 15) == 0


async def _status_in_flight(process: ServedProcess, *, workers: int, then: Callable[[], None]) -> set[int]:
    """The status of logins that each wait for a password hash, or for those that do, when `then` is called."""
    async with AsyncExitStack() as stack:
        connections = [await Connection.open(process.port) for _ in range(16)]
        for connection in connections:
            stack.push_async_callback(connection.close)
        status, _ = await connections[0].post("/user/register", _registration("ada"))
        assert status == 201
        credentials = {"email": "ada@example.com", "password": PASSWORD}
        logins = [asyncio.create_task(connection.post("/user/login", credentials)) for connection in connections]
        await _until_in_flight(process, workers)
        then()
        return {status for status, _ in await asyncio.gather(*logins)}


async def test_a_restart_revives_no_rotated_token(settings: MakeSettings, tmp_path: Path) -> None:
    offset_file = tmp_path / "offset"
    offset_file.write_text("0")
    made = settings()
    issued: list[str] = []
    with served(made, tmp_path, offset_file=offset_file) as [process]:
        connection = await Connection.open(process.port)
        _, body = await connection.post("/user/register", _registration("ada"))
        for step in range(1, 5):
            issued.append(body["refresh_token"])
            offset_file.write_text(str(step * 31))
            _, body = await connection.post("/user/refresh-token", {"refresh_token": issued[-1]})
        newest = body["refresh_token"]
        await connection.close()
    with served(made, tmp_path, offset_file=offset_file) as [process]:
        offset_file.write_text(str(6 * 31))
        connection = await Connection.open(process.port)
        for old in issued:
            status, body = await connection.post("/user/refresh-token", {"refresh_token": old})
            assert (status, body["code"]) in [(401, "refresh_token_reused"), (401, "refresh_token_revoked")]
        status, body = await connection.post("/user/refresh-token", {"refresh_token": newest})
        assert (status, body["code"]) == (401, "refresh_token_revoked")
        await connection.close()


async def test_two_hostile_lengths_are_refused(settings: MakeSettings, tmp_path: Path) -> None:
    with served(settings(), tmp_path) as [process]:
        reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
        writer.write(b"POST /user/login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!")
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert re.match(rb"HTTP/1.1 400 ", answer)
