"""A real Prometheus with the alert rules and the dashboard's queries as they are shipped, before three real processes.

Faults are staged; what ought to fire fires, and clears when the fault has gone. Time goes a hundred times as fast for
the rules (`hastened`): ten minutes of theirs are six seconds here.
"""

import asyncio
import itertools
import json
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from redis import Redis

from auth_service.devstack.process import free_port
from tests.support.balancer import Balancer
from tests.support.gateway import spawn_gateway
from tests.support.load import Connection
from tests.support.processes import ServedProcess, served
from tests.support.prometheus import MISSING, PROMETHEUS, PROMTOOL, Prometheus, hastened, prometheus
from tests.support.service import PASSWORD, WINDOW
from tests.support.stores import Stores

pytestmark = pytest.mark.skipif(PROMETHEUS is None or PROMTOOL is None, reason=MISSING)

_DEPLOY = Path(__file__).parent.parent / "deploy"
_FASTER = 100
_ADA = {"username": "ada", "password": PASSWORD}


@dataclass(frozen=True, slots=True)
class Watched:
    """Three processes, a service that verifies, and the Prometheus that watches them."""

    prometheus: Prometheus
    processes: list[ServedProcess]
    balancer: Balancer
    stores: Stores
    database_url: str
    clock: Path
    http: httpx2.Client

    def fires(self, *names: str, while_: Callable[[], object] = lambda: None, seconds: float = 30) -> None:
        """Wait until each of these alerts has fired, with its text in order; meanwhile do `while_`."""
        awaited = set(names)

        def holds() -> bool:
            while_()
            awaited.difference_update(self.prometheus.firing())
            return not awaited

        self.prometheus.until(holds, seconds=seconds)
        for alert in self.prometheus.alerts():
            assert "error expanding template" not in str(alert["annotations"]), alert

    def clears(self, *names: str, seconds: float = 30) -> None:
        self.prometheus.until(lambda: not set(names) & self.prometheus.firing(), seconds=seconds)

    def login(self, **changes: str) -> httpx2.Response:
        return self.http.post("/user/login", json=_ADA | changes)

    def refresh(self, refresh_token: str) -> httpx2.Response:
        return self.http.post("/user/refresh-token", json={"refresh_token": refresh_token})


@pytest.fixture(scope="module")
def watched(fragile: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("prometheus")
    clock = folder / "offset"
    clock.write_text("0")
    with ExitStack() as stack:
        balancer = stack.enter_context(Balancer([]))  # to nobody yet
        issuer = f"http://127.0.0.1:{balancer.port}"
        database_url = fragile.new_database()
        settings = fragile.settings(database_url=database_url, issuer=issuer)
        gateway_metrics = stack.enter_context(_gateway(issuer))
        processes = stack.enter_context(served(settings, folder, count=3, offset_file=clock))
        watching = stack.enter_context(
            prometheus(
                folder,
                rules=hastened((_DEPLOY / "prometheus" / "alerts.yaml").read_text("utf-8"), times=_FASTER),
                jobs={
                    "auth-service": [f"127.0.0.1:{process.internal_port}" for process in processes],
                    "orders": [gateway_metrics],
                },
            )
        )
        http = stack.enter_context(httpx2.Client(base_url=processes[0].url, timeout=10))
        body = {**_ADA, "email": "ada@example.com"}
        assert http.post("/user/register", json=body).status_code == 201
        yield Watched(watching, processes, balancer, fragile, database_url, clock, http)


@contextmanager
def _gateway(issuer: str) -> Iterator[str]:
    """The gateway example, and where its metrics are."""
    page, metrics = (f"127.0.0.1:{free_port()}" for _ in range(2))
    process = spawn_gateway(issuer, subprocess.DEVNULL, GATEWAY_LISTEN=page, GATEWAY_METRICS_LISTEN=metrics)
    try:
        yield metrics
    finally:
        process.terminate()
        process.wait(10)


def test_a_service_that_hears_no_feed_is_told_of_until_it_does(watched: Watched) -> None:
    watched.fires("AuthVerifierFeedStale")
    watched.balancer.targets = [process.port for process in watched.processes]
    watched.clears("AuthVerifierFeedStale")


def test_three_processes_are_scraped_and_nothing_fires_while_all_is_well(watched: Watched) -> None:
    watched.prometheus.until(lambda: watched.prometheus.number("sum(up)") == 4)
    for process in watched.processes:
        assert httpx2.post(f"{process.url}/user/login", json=_ADA).status_code == 200
    logins = 'sum(auth_logins_total{outcome="success"})'
    watched.prometheus.until(lambda: watched.prometheus.number(logins) == 3)
    assert watched.prometheus.firing() == set()


def test_a_journal_that_cannot_be_written_makes_news_late_and_answers_slow(watched: Watched) -> None:
    def hold() -> None:
        with _locked(watched.database_url, "revocations") as execute:
            execute("SELECT pg_sleep(2.5)")

    def come_and_go() -> None:
        watched.http.post("/user/logout", json={"refresh_token": watched.login().json()["refresh_token"]})

    with ExitStack() as stack:
        for act in (hold, *[come_and_go] * 8):
            stack.enter_context(_without_end(act))
        watched.fires("AuthRevocationLag", "AuthLatencyBudgetBurn", seconds=60)
    watched.clears("AuthRevocationLag")
    watched.prometheus.until(lambda: not _burning(watched.prometheus, "AuthLatencyBudgetBurn", window="1h"), seconds=60)


def test_refresh_tokens_that_come_back_raise_an_alarm(watched: Watched) -> None:
    sessions = [watched.login().json()["refresh_token"] for _ in range(15)]
    assert {watched.refresh(token).status_code for token in sessions} == {200}
    with httpx2.Client(
        base_url=watched.processes[0].url, transport=httpx2.HTTPTransport(local_address="127.9.9.9")
    ) as thief:
        replays = [thief.post("/user/refresh-token", json={"refresh_token": token}) for token in sessions]
    assert {answer.status_code for answer in replays} == {200}
    watched.fires("AuthReplaysFromElsewhere")
    watched.clock.write_text(str(WINDOW + 1))
    assert {watched.refresh(token).json()["code"] for token in sessions} == {"refresh_token_reused"}
    watched.fires("AuthRefreshReuse")
    watched.clears("AuthRefreshReuse", "AuthReplaysFromElsewhere")


def test_every_query_of_the_dashboard_answers_with_data(watched: Watched) -> None:
    token = watched.login().json()["refresh_token"]
    assert watched.refresh(token).status_code == 200
    assert watched.http.post("/user/logout", json={"refresh_token": token}).status_code == 204

    def is_answered(expression: str) -> bool:
        return any(series["value"][1] != "NaN" for series in watched.prometheus.query(expression))

    queries = _dashboard_queries()
    assert len(queries) > 30
    watched.prometheus.until(lambda: is_answered(f"rate({_of('auth_revocation_lag_seconds_count')}[60s]) > 0"))
    assert [query for query in queries if not is_answered(query)] == []


def test_logins_that_fail_are_held_back_or_are_too_many_are_told_of(watched: Watched) -> None:
    numbers = itertools.count()

    async def guess() -> None:
        connection = await Connection.open(watched.processes[0].port)
        await connection.post("/user/login", {"username": f"nobody{next(numbers)}", "password": PASSWORD})
        await connection.close()

    async def many_guesses() -> None:
        await asyncio.gather(*(guess() for _ in range(200)))

    def guess_at_one() -> None:  # where no others wait
        httpx2.post(f"{watched.processes[1].url}/user/login", json=_ADA | {"username": "nobody"}, timeout=10)

    told = ("AuthLoginFailures", "AuthThrottling", "AuthHashQueueFull")
    with _without_end(guess_at_one), _without_end(lambda: asyncio.run(many_guesses())):
        watched.fires(*told)
    watched.clears(*told)


def test_a_process_that_was_killed_is_missed_until_it_is_back(watched: Watched) -> None:
    first, second, third = watched.processes
    second.send(signal.SIGKILL)
    watched.fires("AuthProcessDown")
    assert "AuthTooFewProcesses" not in watched.prometheus.firing()
    third.send(signal.SIGKILL)
    watched.fires("AuthTooFewProcesses")
    for process in (second, third):
        process.popen.wait(10)
        process.start()
    watched.clears("AuthProcessDown", "AuthTooFewProcesses")
    assert first.popen.poll() is None


def test_a_standby_key_that_cannot_be_read_and_then_is_missing_is_told_of(watched: Watched) -> None:
    with _connected(watched.database_url) as execute:
        execute("UPDATE signing_keys SET kid = 'another' WHERE signs_from > now() + interval '1 hour'")
    watched.fires("AuthSigningKeyUnreadable")
    with _locked(watched.database_url, "signing_keys") as execute:
        # Who has waited for the lock has planned for the key that was there.
        execute("DELETE FROM signing_keys WHERE kid = 'another'; COMMIT; BEGIN; LOCK TABLE signing_keys IN SHARE MODE")
        watched.fires("AuthKeyRotationOverdue")
        watched.clears("AuthSigningKeyUnreadable")
    watched.clears("AuthKeyRotationOverdue")


def test_redis_that_stops_is_named_and_its_failures_use_up_the_budget(watched: Watched) -> None:
    token = watched.login().json()["refresh_token"]
    watched.stores.redis.stop(signal.SIGKILL)
    try:
        watched.fires("AuthRedisDown", "AuthErrorBudgetBurn", while_=lambda: watched.refresh(token))
        assert not {"AuthPostgreSQLDown", "AuthFeedStale"} & watched.prometheus.firing()
    finally:
        watched.stores.redis.start()
    watched.clears("AuthRedisDown")
    assert watched.refresh(token).status_code == 200
    watched.prometheus.until(lambda: not _burning(watched.prometheus, "AuthErrorBudgetBurn", window="1h"))


def test_a_redis_that_refuses_some_commands_is_told_of(watched: Watched) -> None:
    token = watched.login().json()["refresh_token"]
    with Redis.from_url(watched.stores.redis_url) as redis:
        redis.execute_command("ACL", "SETUSER", "default", "-evalsha", "-eval")
        try:
            watched.fires("AuthStoreFailures", while_=lambda: watched.refresh(token))
            assert "AuthRedisDown" not in watched.prometheus.firing()
        finally:
            redis.execute_command("ACL", "SETUSER", "default", "+evalsha", "+eval")
    watched.clears("AuthStoreFailures")
    assert watched.refresh(token).status_code == 200


def test_a_postgresql_that_takes_no_writes_is_told_of(watched: Watched) -> None:
    name = watched.database_url.rpartition("/")[2]
    with _connected(watched.stores.postgresql.url("postgres")) as execute:

        def reject_writes(whether: str) -> None:
            execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {whether}")
            execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

        reject_writes("on")
        try:
            watched.fires("AuthPostgreSQLDown")
            stores = httpx2.get(f"{watched.processes[0].internal_url}/readyz").json()["stores"]
            assert stores == {"postgresql": "down", "redis": "up"}
            assert "AuthFeedStale" not in watched.prometheus.firing(), "the stream keeps the feed fresh"
        finally:
            reject_writes("off")
    watched.clears("AuthPostgreSQLDown")


def test_without_both_stores_the_feed_is_stale_and_each_is_named(watched: Watched) -> None:
    watched.stores.postgresql.stop(signal.SIGINT)
    try:
        watched.fires("AuthPostgreSQLDown")
        assert not {"AuthRedisDown", "AuthFeedStale"} & watched.prometheus.firing(), "the stream keeps the feed fresh"
        watched.stores.redis.stop(signal.SIGKILL)
        try:
            watched.fires("AuthRedisDown", "AuthFeedStale")
        finally:
            watched.stores.redis.start()
    finally:
        watched.stores.postgresql.start()
    watched.clears("AuthRedisDown", "AuthPostgreSQLDown", "AuthFeedStale")


def test_hastening_changes_ranges_and_patience_alone() -> None:
    assert hastened("expr: rate(a[5m]) > 5 and b[1h]\nfor: 30s\nfor: 10m", times=60) == (
        "expr: rate(a[5000ms]) > 5 and b[60000ms]\nfor: 500ms\nfor: 10000ms"
    )


def _burning(watching: Prometheus, name: str, *, window: str) -> list[dict[str, Any]]:
    return [
        alert
        for alert in watching.alerts()
        if alert["state"] == "firing"
        and (alert["labels"]["alertname"], alert["labels"].get("window")) == (name, window)
    ]


def _of(metric: str) -> str:
    return f'{metric}{{job="auth-service"}}'


def _dashboard_queries() -> list[str]:
    """Every query of every panel, with the variables as they are when all is chosen."""
    panels = json.loads((_DEPLOY / "grafana" / "auth-service.json").read_text("utf-8"))["panels"]
    expressions = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [
        re.sub(r"\$(job|instance|verifier)\b", ".+", expression).replace("$__rate_interval", "60s")
        for expression in expressions
    ]


@contextmanager
def _connected(database_url: str) -> Iterator[Callable[[str], object]]:
    """Runs statements while the body does."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(database_url))
        try:
            yield lambda statements: runner.run(connection.execute(statements))
        finally:
            runner.run(connection.close())


@contextmanager
def _locked(database_url: str, table: str) -> Iterator[Callable[[str], object]]:
    """While the body runs, nothing can be written to that table but by what this yields; it can be read."""
    with _connected(database_url) as execute:
        execute(f"BEGIN; LOCK TABLE {table} IN SHARE MODE")
        yield execute
        execute("COMMIT")


@contextmanager
def _without_end(act: Callable[[], object]) -> Iterator[None]:
    """Have `act` done again and again while the body runs."""
    done = threading.Event()

    def again() -> None:
        while not done.is_set():
            act()

    acting = threading.Thread(target=again)
    acting.start()
    try:
        yield
    finally:
        done.set()
        acting.join(10)
