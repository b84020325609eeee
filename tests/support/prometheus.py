"""A real Prometheus on loopback: what it is told to scrape and to watch, and what it says.

Debian's package also starts a Prometheus of its own: that one is never asked.
"""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from auth_service.devstack.process import ServerProcess, free_port

PROMETHEUS = shutil.which("prometheus")
PROMTOOL = shutil.which("promtool")
MISSING = "no prometheus or no promtool here: install Debian's package `prometheus` to run this"

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?<=\[)([0-9]+)([smhd])(?=\])|(?<=for: )([0-9]+)([smhd])$", re.M)


def hastened(rules: str, *, times: float) -> str:
    """The same rules for a time that goes `times` faster: every range and every `for:` is divided by it, and nothing
    else is changed. No range becomes shorter than two seconds, in which there are still several scrapes."""

    def divided(found: re.Match[str]) -> str:
        number, unit = (found[1], found[2]) if found[1] else (found[3], found[4])
        least = 2000 if found[1] else 0
        return f"{max(int(int(number) * _SECONDS[unit] * 1000 / times), least)}ms"

    return _DURATION.sub(divided, rules)


class Prometheus:
    """One that runs, scrapes twice a second, and looks at its rules four times."""

    def __init__(self, folder: Path, *, rules: str, jobs: Mapping[str, Sequence[str]]) -> None:
        assert PROMETHEUS is not None
        assert PROMTOOL is not None
        port = free_port()
        (folder / "rules.yaml").write_text(rules, "utf-8")
        configuration = {
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "250ms"},
            "rule_files": [str(folder / "rules.yaml")],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": list(targets)}]} for job, targets in jobs.items()
            ],
        }
        file = folder / "prometheus.yaml"
        file.write_text(json.dumps(configuration), "utf-8")
        subprocess.run([PROMTOOL, "check", "config", str(file)], check=True, capture_output=True)
        self.log = folder / "prometheus.log"
        options = (f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}")
        self._server = ServerProcess([PROMETHEUS, *options, f"--web.listen-address=127.0.0.1:{port}"], log=self.log)
        self._url = f"http://127.0.0.1:{port}"
        self._http = httpx2.Client(base_url=f"{self._url}/api/v1", timeout=10)

    def wait_until_ready(self) -> None:
        """Wait until it answers queries: it listens before it does."""

        def is_ready() -> bool:
            try:
                return httpx2.get(f"{self._url}/-/ready", timeout=1).status_code == 200
            except httpx2.TransportError:
                return False

        self._server.wait_until(is_ready)

    def stop(self) -> None:
        self._http.close()
        self._server.stop()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query: series with a `metric` and a `value`. Raises for one that is wrong."""
        answer = self._http.get("/query", params={"query": expression}).json()
        assert answer["status"] == "success", (expression, answer)
        result = answer["data"]["result"]
        assert isinstance(result, list)
        return result

    def number(self, expression: str) -> float | None:
        """The value of the one series that an expression results in; None while there is none."""
        series = self.query(expression)
        return float(series[0]["value"][1]) if series else None

    def firing(self) -> set[str]:
        """The names of the alerts that fire now."""
        return {alert["labels"]["alertname"] for alert in self.alerts() if alert["state"] == "firing"}

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that are pending or fire, with their labels and annotations."""
        alerts: list[dict[str, Any]] = self._http.get("/alerts").json()["data"]["alerts"]
        return alerts

    def until(self, holds: Callable[[], bool], *, seconds: float = 30) -> float:
        """Wait until `holds`; the seconds it took."""
        began = time.monotonic()
        while True:
            if holds():
                return time.monotonic() - began
            assert time.monotonic() - began < seconds, (self.firing(), self.log.read_text()[-2000:])
            time.sleep(0.05)


@contextmanager
def prometheus(folder: Path, *, rules: str, jobs: Mapping[str, Sequence[str]]) -> Iterator[Prometheus]:
    """A Prometheus with its data in `folder`, stopped when the body ends. `jobs`: the targets of each job."""
    running = Prometheus(folder, rules=rules, jobs=jobs)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()
