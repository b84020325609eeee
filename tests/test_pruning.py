"""Pruning: what is long over goes, in batches, and nothing that lives is touched."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from prometheus_client import REGISTRY

from auth_service.jobs import Job, run_step
from auth_service.pruning import BATCH, MARGIN, pruning_jobs
from auth_service.settings import Settings
from tests.support.load import Connection
from tests.support.processes import served
from tests.support.service import PASSWORD, Service, Start, problem, running_service
from tests.support.tokens import claims_of

_INSERT = {
    "sessions": "INSERT INTO sessions (id, user_id, client_id, transport, scope, created_at, expires_at, last_used_at)"
    " SELECT gen_random_uuid(), $1, 'web', 'body', '', now(), now() - $2::interval - n * interval '1 ms', now()"
    " FROM generate_series(1, $3) AS n",
    "revocations": "INSERT INTO revocations (kind, claim, reason, revoked_at, expires_at)"
    " SELECT 's', gen_random_uuid()::text, left($1::uuid::text, 8), now() - interval '3 days', now() - $2::interval"
    " - n * interval '1 ms' FROM generate_series(1, $3) AS n",
    "audit_events": "INSERT INTO audit_events (occurred_at, action, actor_kind, actor_id)"
    " SELECT now() - $2::interval - n * interval '1 ms', 'user.login', 'user', $1::uuid::text"
    " FROM generate_series(1, $3) AS n",
}
_EXPIRES = {"sessions": "expires_at", "revocations": "expires_at", "audit_events": "occurred_at"}
_TABLES = pytest.mark.parametrize("table", list(_INSERT))


def _job(settings: Settings, table: str) -> Job:
    [job] = [job for job in pruning_jobs(settings) if job.name == f"prune_{table}"]
    return job


def _kept(settings: Settings, table: str) -> timedelta:
    return settings.audit_retention if table == "audit_events" else MARGIN


async def _step(service: Service, table: str) -> bool:
    return await run_step(service.app.parts.database, _job(service.settings, table))


async def _fill(service: Service, table: str, user_id: str, ago: timedelta, count: int) -> None:
    await service.sql(_INSERT[table], UUID(user_id) if table == "sessions" else uuid4(), ago, count)


async def _count(service: Service, table: str) -> int:
    [row] = await service.sql(f"SELECT count(*) AS count FROM {table}")
    return int(row["count"])


async def _older(service: Service, table: str, ago: timedelta) -> list[Any]:
    return await service.sql(f"SELECT 1 FROM {table} WHERE {_EXPIRES[table]} < now() - $1::interval", ago)


def _pruned(table: str) -> float:
    return REGISTRY.get_sample_value("auth_pruned_rows_total", {"table": table}) or 0


@_TABLES
async def test_what_is_long_over_goes_in_batches_the_oldest_first(service: Service, table: str) -> None:
    user = await service.register()
    await service.logout(user.refresh_token)
    kept, before, counted = _kept(service.settings, table), await _count(service, table), _pruned(table)
    await _fill(service, table, user.id, kept + timedelta(hours=1), BATCH)
    await _fill(service, table, user.id, kept + timedelta(seconds=5), 10)
    await _fill(service, table, user.id, kept - timedelta(minutes=1), 7)
    assert await _step(service, table) is True
    assert await _count(service, table) == before + 17, "a batch, and no more"
    oldest = kept + timedelta(minutes=1)
    assert await _older(service, table, oldest) == [], "the oldest went first"
    assert await _step(service, table) is False
    assert await _count(service, table) == before + 7
    assert await _step(service, table) is False
    assert await _count(service, table) == before + 7, "what is not over long enough stays, and what lives"
    assert _pruned(table) - counted == BATCH + 10


@_TABLES
async def test_the_step_finds_its_rows_by_an_index(service: Service, table: str) -> None:
    user = await service.register()
    await _fill(service, table, user.id, -timedelta(days=1), 20_000)
    await service.sql(f"ANALYZE {table}")
    plan = await service.sql(
        f"EXPLAIN SELECT id FROM {table} WHERE {_EXPIRES[table]} < now() - interval '100 days'"
        f" ORDER BY {_EXPIRES[table]} LIMIT 1000 FOR UPDATE SKIP LOCKED"
    )
    text = "\n".join(row["QUERY PLAN"] for row in plan)
    assert f"{table}_{_EXPIRES[table]}" in text
    assert "Seq Scan" not in text


@_TABLES
async def test_a_row_that_is_locked_is_left_for_the_next_time(service: Service, table: str) -> None:
    user = await service.register()
    before = await _count(service, table)
    await _fill(service, table, user.id, _kept(service.settings, table) + timedelta(hours=1), 3)
    connection = await asyncpg.connect(service.settings.database_url.get_secret_value())
    try:
        async with connection.transaction():
            await connection.execute(f"SELECT 1 FROM {table} ORDER BY {_EXPIRES[table]} LIMIT 1 FOR UPDATE")
            async with asyncio.timeout(2):
                assert await _step(service, table) is False
            assert await _count(service, table) == before + 1
    finally:
        await connection.close()
    await _step(service, table)
    assert await _count(service, table) == before


async def test_how_long_events_are_kept_is_a_setting(start: Start) -> None:
    service = await start(audit_retention=2 * 86_400)
    user = await service.register()
    service.advance(seconds=2 * 86_400 - 60)
    await service.login(user)
    await _step(service, "audit_events")
    assert await _actions(service) == ["user.registered", "user.login"]
    service.advance(seconds=61)
    longer = service.settings.model_copy(update={"audit_retention": timedelta(days=3)})
    await run_step(service.app.parts.database, _job(longer, "audit_events"))
    assert await _actions(service) == ["user.registered", "user.login"]
    await _step(service, "audit_events")
    assert await _actions(service) == ["user.login"]


async def _actions(service: Service) -> list[str]:
    return [row["action"] for row in await service.sql("SELECT action FROM audit_events ORDER BY id")]


async def test_a_session_is_refused_in_the_same_way_before_and_after_it_is_pruned(service: Service) -> None:
    user = await service.register()
    await service.flush_checkpoints()
    service.advance(seconds=30 * 86_400 - 1)
    for table in _INSERT:
        await _step(service, table)
    assert len(await service.sql("SELECT 1 FROM sessions")) == 1, "it lives for one second more"
    service.advance(seconds=86_400)
    await _step(service, "sessions")
    assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_expired")
    assert problem(await service.me(user.access_token)) == (401, "invalid_token")
    service.advance(seconds=2)
    await _step(service, "sessions")
    assert await service.sql("SELECT 1 FROM sessions") == []
    assert (await service.refresh(user.refresh_token)).status_code == 401
    assert problem(await service.me(user.access_token)) == (401, "invalid_token")
    assert (await service.logout(user.refresh_token)).status_code == 204
    assert (await service.login(user)).id == user.id


async def test_a_revocation_is_kept_until_no_verifier_needs_it(service: Service) -> None:
    user = await service.register()
    await service.logout(user.refresh_token)
    [entry] = await service.sql("SELECT revoked_at, expires_at FROM revocations")
    service.advance(seconds=(entry["expires_at"] - entry["revoked_at"] + MARGIN).total_seconds() - 5)
    await _step(service, "revocations")
    assert await _count(service, "revocations") == 1
    service.advance(seconds=10)
    await _step(service, "revocations")
    assert await _count(service, "revocations") == 0


async def test_under_load_nothing_that_lives_is_touched(settings: Callable[..., Settings], tmp_path: Path) -> None:
    """A real process serves logins, refreshes and logouts while everything that is over is pruned beside it."""
    used = settings()
    with served(used, tmp_path) as [process]:
        async with running_service(used) as service:
            dead = await service.register(username="dead", email="dead@example.com")
            for table in _INSERT:
                await _fill(service, table, dead.id, _kept(used, table) + timedelta(hours=1), 4 * BATCH)
            pruning = True

            async def use(number: int) -> tuple[list[str], list[str]]:
                """The sessions of one user that are alive at the end, and those that were logged out."""
                connection = await Connection.open(process.port)
                name = {"username": f"u{number}", "email": f"u{number}@example.com", "password": PASSWORD}
                status, body = await connection.post("/user/register", name)
                assert status == 201, body
                alive: list[str] = [body["refresh_token"]]
                ended: list[str] = []
                login = {"username": name["username"], "password": PASSWORD}
                while pruning or len(ended) < 2:
                    status, body = await connection.post("/user/login", login)
                    assert status == 200, body
                    alive.append(body["refresh_token"])
                    for refresh_token in alive:
                        status, body = await connection.post("/user/refresh-token", {"refresh_token": refresh_token})
                        assert status == 200, body
                    ended.append(alive.pop(0))
                    assert (await connection.post("/user/logout", {"refresh_token": ended[-1]}))[0] == 204
                await connection.close()
                return alive, ended

            users = asyncio.gather(*(use(number) for number in range(4)))
            steps = {table: [await _step(service, table)] for table in _INSERT}
            for table, more in steps.items():
                while more[-1]:
                    more.append(await _step(service, table))
            pruning = False
            for alive, ended in await users:
                for refresh_token in alive:
                    assert (await service.refresh(refresh_token)).status_code == 200
                for refresh_token in ended:
                    assert problem(await service.refresh(refresh_token)) == (401, "refresh_token_revoked")
                sids = [claims_of(refresh_token)["sid"] for refresh_token in ended]
                assert len(await service.sql("SELECT 1 FROM revocations WHERE claim = ANY($1)", sids)) == len(sids)
                logouts = await service.sql("SELECT 1 FROM audit_events WHERE target_id = ANY($1)", sids)
                assert len(logouts) == len(sids)
            assert {table: len(more) for table, more in steps.items()} == dict.fromkeys(_INSERT, 5)
            for table in _INSERT:
                assert await _older(service, table, _kept(used, table)) == []


def test_the_settings_know_the_least_retention(settings: Callable[..., Settings]) -> None:
    assert settings(audit_retention=86_400).audit_retention == timedelta(days=1)
    assert settings().audit_retention == timedelta(days=90)
    with pytest.raises(Exception, match="AUTH_AUDIT_RETENTION"):
        settings(audit_retention=86_399)
