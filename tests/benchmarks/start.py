"""What a process of the service takes: from its start to its first answer, and in memory once it is idle."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx2
import psutil

from auth_service.devstack.process import free_port
from auth_service.settings import Settings
from tests.support.processes import environment_of
from tests.support.stores import started_stores

_STARTS = 7
_IDLE = 5.0  # seconds until its memory is looked at


def _start(settings: Settings, folder: Path) -> tuple[float, float]:
    """Seconds to the first answer, and MiB of one process when idle."""
    port = free_port()
    environment = environment_of(settings) | {
        "AUTH_LISTEN": f"127.0.0.1:{port}",
        "AUTH_INTERNAL_LISTEN": f"127.0.0.1:{free_port()}",
    }
    with (folder / f"{port}.log").open("wb") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "auth_service", "serve"], env={**os.environ, **environment}, stdout=log, stderr=log
        )
    try:
        while True:
            assert process.poll() is None, "it did not start"
            assert time.perf_counter() - began < 30, "it did not start"
            try:
                answer = httpx2.get(f"http://127.0.0.1:{port}/.well-known/jwks.json", timeout=1)
            except httpx2.TransportError:
                time.sleep(0.005)
                continue
            if answer.status_code == 200:
                break
        seconds = time.perf_counter() - began
        time.sleep(_IDLE)
        return seconds, psutil.Process(process.pid).memory_info().rss / 2**20
    finally:
        process.terminate()
        process.wait(30)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="auth-bench-") as folder, started_stores() as stores:
        settings = stores.settings(issuer="http://127.0.0.1:8000")
        starts = [_start(settings, Path(folder)) for _ in range(_STARTS)]
    print(f"one process, {_STARTS} starts, medians")
    print(f"  start to first answer {statistics.median(seconds for seconds, _ in starts):6.2f} s   (limit 1.5)")
    print(f"  memory when idle      {statistics.median(memory for _, memory in starts):6.0f} MiB (limit 120)")


if __name__ == "__main__":
    main()
