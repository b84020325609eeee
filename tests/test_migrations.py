"""The schema: made by any number of `migrate` at once, the same as the models, and asked for before anything starts."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import pytest
from tortoise.context import TortoiseContext
from tortoise.migrations.autodetector import MigrationAutodetector

from auth_service.settings import Settings
from auth_service.stores.applied_migrations import known_migrations, pending_migrations
from auth_service.stores.clock import Clock
from auth_service.stores.database import Database
from auth_service.stores.schema import tortoise_config
from tests.support.command import command, environment, spawn, spawned
from tests.support.stores import Stores

_AT_ONCE = 8

_SHAPE = """
SELECT table_name, column_name, data_type, character_maximum_length, is_nullable, column_default
FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2
"""
_INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"


@pytest.fixture
def empty(stores: Stores) -> Iterator[Settings]:
    """Settings for a database without any table."""
    url = stores.new_database(empty=True)
    yield stores.settings(database_url=url)
    stores.drop(url)


def _sql(settings: Settings, statement: str) -> list[Any]:
    async def run() -> list[Any]:
        connection = await asyncpg.connect(settings.database_url.get_secret_value())
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    return asyncio.run(run())


def test_eight_migrates_at_once_make_one_schema(empty: Settings, settings: Callable[..., Settings]) -> None:
    processes = [spawn("migrate", "--json", env=environment(empty)) for _ in range(_AT_ONCE)]
    answers = [(*process.communicate(timeout=60), process.returncode) for process in processes]
    assert [(err, code) for _, err, code in answers] == [("", 0)] * _AT_ONCE
    applied = [name for out, _, _ in answers for name in json.loads(out)["applied"]]
    assert applied, "somebody did it"
    assert len(applied) == len(set(applied)), "and nobody did it twice"
    assert _sql(empty, "SELECT name FROM tortoise_migrations ORDER BY name") == [(name,) for name in sorted(applied)]
    # The same schema as one run alone makes.
    for statement in (_SHAPE, _INDEXES):
        assert _sql(empty, statement) == _sql(settings(), statement)


def test_what_must_be_unique_is_so_under_the_names_that_the_code_goes_by(settings: Callable[..., Settings]) -> None:
    unique = dict(_sql(settings(), _INDEXES))
    assert "UNIQUE" in unique["users_email_key_key"]
    assert "(email_key)" in unique["users_email_key_key"]
    assert "UNIQUE" in unique["users_username_key_key"]
    assert "(username_key)" in unique["users_username_key_key"]
    assert any("UNIQUE" in made and "(kind, claim)" in made for made in unique.values())
    assert "(user_id)" in unique["sessions_user_id"]
    assert "(revoked_at)" in unique["revocations_revoked_at"]


def test_a_second_run_changes_nothing(empty: Settings) -> None:
    first = command("migrate", settings=empty)
    assert first.code == 0
    assert first.out.startswith("Applied 0001_initial.")
    before = [_sql(empty, statement) for statement in (_SHAPE, _INDEXES, "SELECT * FROM tortoise_migrations")]
    again = command("migrate", settings=empty)
    assert (again.code, again.out, again.err) == (0, "The schema is up to date.\n", "")
    assert [_sql(empty, statement) for statement in (_SHAPE, _INDEXES, "SELECT * FROM tortoise_migrations")] == before


@pytest.mark.parametrize("url", ["postgresql://u:p@h:notaport/x", "postgresql://u:p@h/x?sslrootcert=/nope"])
@pytest.mark.parametrize("name", ["migrate", "check", "serve"])
def test_a_bad_database_url_is_named_and_ends_no_command_in_a_traceback(empty: Settings, url: str, name: str) -> None:
    # In a process of its own: in this one everything has been imported.
    done = spawned(name, env=environment(empty, AUTH_DATABASE_URL=url))
    assert done.code == 2, done.err
    assert "AUTH_DATABASE_URL" in done.out + done.err
    assert "Traceback" not in done.err


async def test_models_and_migrations_agree() -> None:
    config: Any = tortoise_config("postgresql://")
    async with TortoiseContext() as context:
        await context.init(config)
        assert context.apps is not None
        changes = await MigrationAutodetector(context.apps, config["apps"]).changes()
    assert [(change.name, change.operations) for change in changes] == [], "run makemigrations: see models.py"


async def test_what_is_missing_is_named_and_asking_changes_nothing(stores: Stores, empty: Settings) -> None:
    url = empty.database_url.get_secret_value()
    database = Database(url, Clock())
    await database.open()
    for _ in range(2):
        assert await pending_migrations(database) == known_migrations()
    await database.close()
    assert known_migrations()[0] == "0001_initial"
    connection = await asyncpg.connect(url)
    assert await connection.fetch("SELECT 1 FROM pg_tables WHERE schemaname = 'public'") == []
    await connection.close()


def test_check_says_what_to_do_about_a_database_that_is_not_migrated(empty: Settings) -> None:
    done = command("check", settings=empty)
    assert done.code == 1
    assert "schema" in done.out
    assert "missing: run `auth-service migrate`" in done.out
    rows = {row["subject"]: row["state"] for row in json.loads(command("check", "--json", settings=empty).out)}
    assert rows == {"settings": "ok", "schema": "wrong", "redis": "ok"}
    refused = command("users", "list", settings=empty)
    assert (refused.code, refused.out) == (1, "")
    assert "`auth-service check` says more" in refused.err


def test_serve_refuses_to_start_on_a_database_that_is_not_migrated(empty: Settings) -> None:
    done = spawned("serve", env=environment(empty))
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("Error: refusing to start:\n")
    assert "run `auth-service migrate`" in done.err


def test_a_right_that_is_missing_is_said_in_one_line(empty: Settings, stores: Stores) -> None:
    # PostgreSQL 15 and later give the right to make tables to the owner of the database alone.
    _sql(empty, "CREATE ROLE limited LOGIN PASSWORD 'canary'")
    _sql(empty, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    try:
        url = empty.database_url.get_secret_value()
        limited = f"postgresql://limited:canary@{url.rpartition('@')[2]}"
        done = command("migrate", settings=empty, given={"AUTH_DATABASE_URL": limited})
        assert (done.code, done.out) == (1, "")
        [line] = done.err.splitlines()
        assert "permission denied for schema public" in line
        assert "canary" not in line
    finally:
        _sql(empty, "DROP ROLE limited")


def test_migrate_says_which_store_is_away(empty: Settings) -> None:
    done = command("migrate", settings=empty, given={"AUTH_DATABASE_URL": "postgresql://auth:canary@127.0.0.1:1/auth"})
    assert (done.code, done.out) == (1, "")
    [line] = done.err.splitlines()
    assert "postgresql" in line
    assert "canary" not in line
