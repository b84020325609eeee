"""What a refresh costs: CPU of the service per request, and the share of it that the two signatures are.

Each round measures one `openssl speed` and the service, so that both see the same machine. The service is pinned to one
core where the system can, the client to the others; every request rotates, each session once.
"""

import asyncio
import os
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.support.load import Connection
from tests.support.processes import ServedProcess, served
from tests.support.service import PASSWORD
from tests.support.stores import Stores

_ROUNDS = 5
_CONNECTIONS = 16
_SESSIONS = 1600
_SIGNATURES = 2


def openssl_signature() -> float:
    """Microseconds of one RSA-2048 signature, by `openssl speed` on the service's core."""
    command = ["openssl", "speed", "-seconds", "1", "rsa2048"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=_pin_first).stdout
    found = re.search(r"rsa 2048 bits\s+([0-9.]+)s", printed)
    assert found, printed
    return float(found[1]) * 1e6


async def refreshes(
    process: ServedProcess, connections: Sequence[Connection], tokens: list[str]
) -> tuple[float, float]:
    """CPU microseconds per request, and requests per second, of rotating each of `tokens` once."""
    server = psutil.Process(process.popen.pid)
    before, began = server.cpu_times(), time.perf_counter()

    async def use(connection: Connection, share: range) -> None:
        for index in share:
            status, body = await connection.post("/user/refresh-token", {"refresh_token": tokens[index]})
            assert status == 200, body
            tokens[index] = body["refresh_token"]

    await asyncio.gather(
        *(use(connection, range(n, len(tokens), len(connections))) for n, connection in enumerate(connections))
    )
    after, seconds = server.cpu_times(), time.perf_counter() - began
    cpu = after.user + after.system - before.user - before.system
    return cpu / len(tokens) * 1e6, len(tokens) / seconds


async def measure(process: ServedProcess, offset_file: Path) -> None:
    connections = [await Connection.open(process.port) for _ in range(_CONNECTIONS)]
    status, body = await connections[0].post(
        "/user/register", {"username": "bench", "email": "bench@example.com", "password": PASSWORD}
    )
    assert status == 201, body
    tokens = await _sessions(connections)
    await refreshes(process, connections, tokens)  # warm
    rows = []
    for number in range(1, _ROUNDS + 1):
        _pass_the_window(offset_file, number)
        signature = openssl_signature()
        cpu, rate = await refreshes(process, connections, tokens)
        rows.append((signature, cpu, rate, _SIGNATURES * signature / cpu))
        print(f"  round {number}: signature {signature:.0f} us, refresh {cpu:.0f} us of CPU, {rate:.0f}/s")
    signature, cpu, rate, share = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"median: signature {signature:.0f} us, refresh {cpu:.0f} us of CPU, {rate:.0f}/s, E = {share:.2f}")


async def _sessions(connections: Sequence[Connection]) -> list[str]:
    credentials = {"email": "bench@example.com", "password": PASSWORD}

    async def logins(connection: Connection) -> list[str]:
        tokens = []
        for _ in range(_SESSIONS // len(connections)):
            status, body = await connection.post("/user/login", credentials)
            assert status == 200, body
            tokens.append(body["refresh_token"])
        return tokens

    return [token for tokens in await asyncio.gather(*map(logins, connections)) for token in tokens]


def _pass_the_window(offset_file: Path, number: int) -> None:
    """Move time so that the next use of each token rotates."""
    offset_file.write_text(str(31 * number))


def _pin_first() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="auth-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        stores = Stores(folder)
        stores.start()
        offset_file = folder / "offset"
        offset_file.write_text("0")
        database = stores.new_database()
        try:
            with served(stores.settings(database_url=database), folder, offset_file=offset_file) as [process]:
                if hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) > 1:
                    cores = sorted(os.sched_getaffinity(0))
                    os.sched_setaffinity(process.popen.pid, {cores[0]})
                    os.sched_setaffinity(0, set(cores[1:]))
                print(f"refresh, one worker, {_SESSIONS} sessions, {_CONNECTIONS} connections, {os.cpu_count()} cores")
                asyncio.run(measure(process, offset_file))
        finally:
            stores.stop()


if __name__ == "__main__":
    main()
