"""The metrics: what each counts, that they are well formed on both ports, and right with several workers."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx2
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from auth_service import __version__
from auth_service.devstack.process import free_port
from auth_service.revocation import journal
from auth_service.settings import Settings
from tests.support.admin import administrator
from tests.support.gateway import until
from tests.support.processes import ServedProcess, served
from tests.support.prometheus import MISSING, PROMTOOL
from tests.support.service import PASSWORD, WINDOW, Service, Start, running_service
from tests.support.stores import Stores, stopped
from tests.support.tokens import header_of

MakeSettings = Callable[..., Settings]
Figures = dict[str, float]


def figures(exposition: str) -> Figures:
    """Every sample, by its name and labels as they stand in the text format."""
    return {
        f"{sample.name}{{{','.join(f'{name}={value}' for name, value in sorted(sample.labels.items()))}}}": sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    }


async def told(service: Service) -> Figures:
    return figures((await service.internal.get("/metrics")).text)


async def grown(service: Service, act: Callable[[], Awaitable[object]], prefix: str) -> Figures:
    """The figures that begin with `prefix` and grew through `act`, and by how much."""
    before = await told(service)
    await act()
    after = await told(service)
    changed = {name: value - before.get(name, 0) for name, value in after.items() if name.startswith(prefix)}
    return {name.removeprefix(prefix): by for name, by in changed.items() if by}


async def test_each_refresh_is_counted_once_by_its_outcome(service: Service) -> None:
    async def outcomes(refresh_token: str) -> Figures:
        return await grown(service, lambda: service.refresh(refresh_token), "auth_refreshes_total")

    user = await service.register()
    first = user.refresh_token
    assert await outcomes(first) == {"{outcome=rotated}": 1}
    assert await outcomes(first) == {"{outcome=replayed}": 1}
    second = await service.refreshed(first)
    assert await outcomes(second) == {"{outcome=held}": 1}
    service.advance(seconds=WINDOW + 1)
    assert await outcomes(first) == {"{outcome=reused}": 1}
    assert await outcomes(second) == {"{outcome=revoked}": 1}
    assert await outcomes("nonsense") == {"{outcome=invalid}": 1}
    other = await service.login(user)
    service.advance(seconds=8 * 86400)
    assert await outcomes(other.refresh_token) == {"{outcome=expired}": 1}


async def test_failures_of_a_route_are_told_as_none_before_the_first(service: Service) -> None:
    """A counter that comes with its first failure shows no increase, and the alerts would not see it."""
    assert (await service.http.get("/openapi.json")).status_code == 200
    found = await told(service)
    for status in (500, 503):
        assert found[f"auth_http_requests_total{{method=GET,route=/openapi.json,status={status}}}"] == 0


async def test_a_refresh_that_redis_has_forgotten_is_adopted(service: Service) -> None:
    user = await service.register()
    second = await service.refreshed(user.refresh_token)
    await service.flush_redis()
    await service.sql("UPDATE sessions SET generation = 1, rotated_at = NULL")
    refreshed = await grown(service, lambda: service.refresh(second), "auth_refreshes_total")
    assert refreshed == {"{outcome=adopted}": 1}


async def test_a_replay_from_another_address_is_told_apart(start: Start) -> None:
    service = await start(trusted_proxies="127.0.0.1/32")
    user = await service.register()

    async def refresh_from(address: str) -> None:
        headers = {"X-Forwarded-For": address}
        answer = await service.http.post(
            "/user/refresh-token", json={"refresh_token": user.refresh_token}, headers=headers
        )
        assert answer.status_code == 200

    await refresh_from("198.51.100.7")
    await service.flush_checkpoints()
    near = await grown(service, lambda: refresh_from("198.51.100.7"), "auth_refreshes_total")
    assert near == {"{outcome=replayed}": 1}
    for _ in range(2):  # the second is counted too, though the audit log has one in five minutes
        far = await grown(service, lambda: refresh_from("203.0.113.9"), "auth_refreshes_total")
        assert far == {"{outcome=replayed_elsewhere}": 1}


async def test_what_was_neither_refused_nor_answered_is_unavailable(
    fragile_settings: MakeSettings, fragile: Stores
) -> None:
    async with running_service(fragile_settings()) as service:
        user = await service.register()
        async with stopped(fragile.redis, signal.SIGKILL):
            refreshed = await grown(service, lambda: service.refresh(user.refresh_token), "auth_refreshes_total")
            assert refreshed == {"{outcome=unavailable}": 1}
            until_down = asyncio.timeout(5)
            async with until_down:
                while (await told(service))["auth_store_up{store=redis}"]:  # noqa: ASYNC110 — another task's gauge
                    await asyncio.sleep(0.02)
            assert (await told(service))["auth_store_up{store=postgresql}"] == 1
        async with asyncio.timeout(10):
            while not (await told(service))["auth_store_up{store=redis}"]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_a_refresh_that_asks_for_more_is_refused_and_counted(service: Service) -> None:
    user = await service.register()
    form = {"grant_type": "refresh_token", "refresh_token": user.refresh_token, "client_id": "web", "scope": "more"}
    refreshed = await grown(service, lambda: service.http.post("/oauth/token", data=form), "auth_refreshes_total")
    assert refreshed == {"{outcome=refused}": 1}


async def test_tokens_logins_and_revocations_are_counted(service: Service) -> None:
    user = await service.register()
    issued = await grown(service, lambda: service.login(user), "auth_tokens_issued_total")
    assert issued == {"{grant=login,kind=access}": 1, "{grant=login,kind=refresh}": 1}
    wrong = {"email": user.email, "password": "not the right one"}
    refused = await grown(service, lambda: service.http.post("/user/login", json=wrong), "auth_logins_total")
    assert refused == {"{outcome=refused}": 1}
    ended = await grown(service, lambda: service.logout(user.refresh_token), "auth_revocations_total")
    assert ended == {"{kind=session,reason=logout}": 1}
    assert await grown(service, lambda: service.logout(user.refresh_token), "auth_revocations_total") == {}


async def test_a_revocation_that_was_rolled_back_is_not_counted(service: Service) -> None:
    database = service.app.parts.database

    async def roll_back() -> None:
        with contextlib.suppress(ZeroDivisionError):
            async with database.transaction() as transaction:
                await journal.revoke(transaction, "j", ["one"], reason="revoked", now=await database.now())
                raise ZeroDivisionError

    assert await grown(service, roll_back, "auth_revocations_total") == {}


async def test_signing_keys_tell_their_age_their_end_and_who_cannot_read_them(service: Service) -> None:
    [row] = await service.sql("SELECT signs_until FROM signing_keys WHERE signs_from <= clock_timestamp()")
    found = await told(service)
    assert found["auth_signing_key_next_rotation_timestamp_seconds{}"] == row["signs_until"].timestamp()
    assert found["auth_signing_keys_unreadable{}"] == 0


async def test_hashes_under_way_are_told_and_none_is_left_behind(service: Service) -> None:
    user = await service.register()
    credentials = {"email": user.email, "password": PASSWORD}
    most = 0.0
    for _ in range(20):  # beside other tests, a look may come too late
        logins = [asyncio.create_task(service.http.post("/user/login", json=credentials)) for _ in range(8)]
        while not all(login.done() for login in logins):
            most = max(most, (await told(service))["auth_password_hash_queue{}"])
            await asyncio.sleep(0.001)
        if most >= 2:
            break
    assert most >= 2
    found = await told(service)
    assert found["auth_password_hash_queue{}"] == 0
    assert found["auth_password_hash_places{}"] > most


async def test_how_long_a_revocation_took_is_measured_from_its_row_whatever_told_of_it(
    fragile_settings: MakeSettings, fragile: Stores, tmp_path: Path
) -> None:
    made = fragile_settings()
    with served(made, tmp_path, count=2) as (first, second):
        tokens = [_refresh_token(first, name) for name in ("ada", "bob", "eve")]

        def logout(refresh_token: str) -> None:
            body = {"refresh_token": refresh_token}
            assert httpx2.post(f"{first.url}/user/logout", json=body, timeout=10).status_code == 204

        logout(tokens[0])
        logout(tokens[1])
        until(lambda: _lags(first, "own")[0] == 2 and _lags(second, "stream")[0] == 2)
        # From the time in the row: the transaction is in it, and the way over Redis.
        assert 0 < _lags(first, "own")[1] / 2 < 1
        assert 0 < _lags(second, "stream")[1] / 2 < 1
        assert (_lags(first, "journal")[0], _lags(second, "journal")[0]) == (0, 0)
        with served(made, tmp_path) as [third]:
            async with stopped(fragile.redis, signal.SIGKILL):
                logout(tokens[2])
                until(lambda: _lags(second, "journal")[0] == 1 and _lags(third, "journal")[0] == 1)
            assert 0 < _lags(second, "journal")[1] < 4
            # What was revoked before it began it has read too: that says nothing of how long it took.
            assert _figures(third)["auth_revocation_entries{}"] == 3
            assert [_lags(third, source)[0] for source in ("own", "stream")] == [0, 0]


@pytest.mark.skipif(PROMTOOL is None, reason=MISSING)
async def test_promtool_finds_no_fault_with_what_the_service_tells(service: Service) -> None:
    await service.logout((await service.register()).refresh_token)
    text = (await service.internal.get("/metrics")).text
    await asyncio.to_thread(_lint, text)
    found = figures(text)
    assert found[f"auth_build_info{{python={sys.version.split()[0]},version={__version__}}}"] == 1
    assert found["process_cpu_seconds_total{}"] > 0


@pytest.mark.skipif(PROMTOOL is None, reason=MISSING)
def test_promtool_finds_no_fault_with_what_the_gateway_tells_on_a_port_of_its_own() -> None:
    port, metrics_port = free_port(), free_port()
    gateway = subprocess.Popen(
        [sys.executable, "-m", "gateway_example"],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("AUTH_")},
            "AUTH_ISSUER": f"http://127.0.0.1:{free_port()}",  # nobody: nothing is verified here
            "AUTH_AUDIENCE": "orders",
            "GATEWAY_LISTEN": f"127.0.0.1:{port}",
            "GATEWAY_METRICS_LISTEN": f"127.0.0.1:{metrics_port}",
        },
    )
    try:
        until(lambda: _status(f"http://127.0.0.1:{port}/healthz") == 200, seconds=20)
        text = httpx2.get(f"http://127.0.0.1:{metrics_port}/metrics").text
        assert _status(f"http://127.0.0.1:{port}/metrics") == 404
    finally:
        gateway.terminate()
        gateway.wait(10)
    _lint(text)
    found = figures(text)
    assert found["auth_verifier_feed_age_seconds{}"] == float("inf")
    assert found["auth_verifier_verifications_total{result=valid}"] == 0


def test_what_a_dead_worker_counted_stays_and_what_it_was_goes(settings: MakeSettings, tmp_path: Path) -> None:
    with served(settings(workers=3), tmp_path) as [process]:
        for name in ("ada", "bob", "eve"):
            _refresh_token(process, name)
        # A feed each, so that every worker has some.
        with httpx2.Client(timeout=10) as http:
            feeds = [http.stream("GET", f"{process.url}/revocations", headers=_EVENTS) for _ in range(12)]
            opened = [feed.__enter__() for feed in feeds]
            assert {answer.status_code for answer in opened} == {200}
            until(lambda: _figures(process)["auth_revocation_feed_clients{}"] == 12)
            text = httpx2.get(f"{process.internal_url}/metrics").text
            before = figures(text)
            workers = set(re.findall(r"pid=([0-9]+)", str(list(before))))
            assert len(workers) == 3
            victim = int(workers.pop())
            psutil.Process(victim).kill()
            until(lambda: f"process_cpu_seconds_total{{pid={victim}}}" not in _figures(process))
            after = _figures(process)
            assert after["auth_revocation_feed_clients{}"] < 12
            assert after["auth_tokens_issued_total{grant=register,kind=access}"] == 3
            for feed in feeds:
                feed.__exit__(None, None, None)
    if PROMTOOL is not None:
        _lint(text)


async def test_no_label_is_of_a_user(service: Service) -> None:
    admin = await administrator(service)
    user = await service.register()
    assert (await admin.call("GET", f"/users/{user.id}")).status_code == 200
    await service.http.delete(f"/user/sessions/{user.id}", headers=user.bearer)
    text = (await service.internal.get("/metrics")).text
    secrets = (user.id, user.username, user.email, admin.user.id, header_of(user.access_token)["kid"])
    assert [secret for secret in secrets if secret in text] == []


_EVENTS = {"Accept": "text/event-stream"}


def _refresh_token(process: ServedProcess, name: str) -> str:
    body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
    answer = httpx2.post(f"{process.url}/user/register", json=body, timeout=10)
    assert answer.status_code == 201, answer.text
    token: str = answer.json()["refresh_token"]
    return token


def _figures(process: ServedProcess) -> Figures:
    return figures(httpx2.get(f"{process.internal_url}/metrics", timeout=10).text)


def _lags(process: ServedProcess, source: str) -> tuple[float, float]:
    """How many revocations `source` told of first, and the sum of the seconds that they took."""
    found = _figures(process)
    name = "auth_revocation_lag_seconds"
    return found[f"{name}_count{{source={source}}}"], found[f"{name}_sum{{source={source}}}"]


def _status(url: str) -> int:
    try:
        return httpx2.get(url).status_code
    except httpx2.TransportError:
        return 0


def _lint(exposition: str) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=exposition, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
