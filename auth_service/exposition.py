"""Writing the metrics down for Prometheus: of this process, or of all workers where there are several."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import prometheus_client
from prometheus_client import REGISTRY, CollectorRegistry, Metric, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

_FILE = re.compile(r"_([0-9]+)\.db")

# When a counter began is in `process_start_time_seconds`: a second series for each would double what is scraped.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


def exposition(accept: str) -> tuple[bytes, str]:
    """The metrics in the format that `accept` asks for (Prometheus text or OpenMetrics), and its content type.

    With several workers every one of them answers for all. What a worker that has died counted stays counted; what it
    was, such as its open feeds, goes with it.
    """
    registry = REGISTRY
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder is not None:
        workers = _live_workers(Path(folder))
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        registry.register(_Processes(workers))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Processes(Collector):
    """`process_*` of several processes, each under its `pid`: added up, the counters would go back when one dies."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = list(pids)

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for pid in self._pids:
            for metric in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                family = families.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
                for sample in metric.samples:
                    family.add_sample(sample.name, {**sample.labels, "pid": str(pid)}, sample.value)
        yield from families.values()


def _live_workers(folder: Path) -> list[int]:
    """The workers that have metrics in `folder` and live. The gauges of those that have died are removed."""
    pids = {int(found[1]) for file in folder.iterdir() if (found := _FILE.search(file.name))}
    dead = {pid for pid in pids if not _is_alive(pid)}
    for pid in dead:
        with contextlib.suppress(FileNotFoundError):  # another worker is at it too
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
    return sorted(pids - dead)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # the number has been given to somebody else's process
        return False
    return True
