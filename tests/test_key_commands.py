"""`auth-service keys`: what each command says and does; and re-wrapping, killed in the middle."""

import asyncio
import json
import re
import secrets
import signal
import time
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

import asyncpg
import pytest
from cryptography.fernet import Fernet

from auth_service.settings import Settings
from tests.support.command import command, environment, spawn
from tests.support.stores import Stores

_T = TypeVar("_T")
_PATIENCE = 20.0  # seconds


def _sql(settings: Settings, statement: str, *values: object) -> list[dict[str, Any]]:
    async def run(connection: Any) -> list[dict[str, Any]]:
        return [dict(row) for row in await connection.fetch(statement, *values)]

    return _connected(settings, run)


def _connected(settings: Settings, work: Callable[[Any], Awaitable[_T]]) -> _T:
    async def run() -> _T:
        connection = await asyncpg.connect(settings.database_url.get_secret_value())
        try:
            return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(run())


def _new_encryption_key() -> str:
    return urlsafe_b64encode(secrets.token_bytes(32)).decode()


def _listed(settings: Settings) -> list[dict[str, Any]]:
    done = command("keys", "list", "--json", settings=settings)
    assert done.code == 0, done.err
    found: list[dict[str, Any]] = json.loads(done.out)
    return found


def _actions(settings: Settings) -> list[tuple[str, str, str]]:
    rows = _sql(settings, "SELECT action, actor_kind, target_id FROM audit_events ORDER BY id")
    return [(row["action"], row["actor_kind"], row["target_id"]) for row in rows]


def test_list_says_what_each_key_is_and_until_when(settings: Callable[..., Settings]) -> None:
    signing, standby = _listed(settings())
    assert signing.keys() == {"kid", "state", "created_at", "signs_from", "signs_until", "removed_at"}
    assert (signing["state"], standby["state"]) == ("signing", "standby")
    assert standby["signs_from"] == signing["signs_until"]
    ends, removed = (datetime.fromisoformat(signing[name]) for name in ("signs_until", "removed_at"))
    assert removed - ends >= timedelta(days=7), "the life of a refresh token"
    table = command("keys", "list", settings=settings()).out.splitlines()
    assert re.match(r"kid +state +signs from +signs until +created +removed", table[0])
    assert re.match(rf"{signing['kid']} +signing +20", table[1])
    assert re.match(rf"{standby['kid']} +standby +20", table[2])


def test_rotate_says_when_the_standby_signs(settings: Callable[..., Settings]) -> None:
    _, standby = _listed(settings())
    done = command("keys", "rotate", "--json", settings=settings())
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert (said["kid"], said["hastened"]) == (standby["kid"], True)
    assert [key["signs_from"] for key in _listed(settings()) if key["kid"] == standby["kid"]] == [said["signs_from"]]
    again = command("keys", "rotate", settings=settings())
    assert re.fullmatch(rf"{standby['kid']} signs from .* UTC on, as it would have anyway\.\n", again.out)
    assert ("key.rotated", "operator", standby["kid"]) in _actions(settings())


def test_revoke_replaces_the_key_and_says_so(settings: Callable[..., Settings]) -> None:
    first, second = (key["kid"] for key in _listed(settings()))
    done = command("keys", "revoke", first, "--end-sessions", "--json", settings=settings())
    assert done.code == 0, done.err
    assert json.loads(done.out) == {"kid": first, "revoked": True, "ended_sessions": 0}
    states = {key["kid"]: key["state"] for key in _listed(settings())}
    assert (states[first], states[second], *states.values()) == ("revoked", "signing", "revoked", "signing", "standby")
    assert command("keys", "revoke", first, settings=settings()).out.startswith("It had been revoked already")


@pytest.mark.parametrize("kid", ["nothing", "-" + "x" * 42, "-" + "h" * 42])
def test_an_unknown_kid_is_said_to_be_one_whatever_it_begins_with(settings: Callable[..., Settings], kid: str) -> None:
    for arguments in ([kid], [kid, "--end-sessions"], ["--json", "--", kid]):
        done = command("keys", "revoke", *arguments, settings=settings())
        assert (done.code, done.out) == (1, ""), arguments
        assert "there is no key of this kid: `auth-service keys list` shows them" in done.err


@pytest.mark.parametrize("arguments", [["rotate"], ["revoke"], ["rewrap"]])
def test_without_the_right_encryption_key_nothing_is_changed(
    settings: Callable[..., Settings], arguments: list[str]
) -> None:
    before = _sql(settings(), "SELECT * FROM signing_keys ORDER BY kid")
    kid = [before[0]["kid"]] if arguments == ["revoke"] else []
    wrong = settings(key_encryption_keys=_new_encryption_key())
    done = command("keys", *arguments, *kid, settings=wrong)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("Error: no key in AUTH_KEY_ENCRYPTION_KEYS decrypts")
    assert not any(key.get_secret_value() in done.err for key in wrong.key_encryption_keys)
    assert _sql(settings(), "SELECT * FROM signing_keys ORDER BY kid") == before
    assert _actions(settings()) == []


def test_rewrap_lets_an_old_encryption_key_go(settings: Callable[..., Settings], stores: Stores) -> None:
    new = _new_encryption_key()
    both, alone = settings(key_encryption_keys=f"{new},{stores.encryption_key}"), settings(key_encryption_keys=new)
    assert command("check", settings=alone).code == 1
    done = command("keys", "rewrap", "--json", settings=both)
    assert done.code == 0, done.err
    assert json.loads(done.out) == {"rewrapped": 2, "unchanged": 0}
    assert command("check", settings=alone).code == 0
    assert command("check", settings=settings()).code == 1, "under the new one alone"
    assert command("keys", "rewrap", settings=both).out == "Rewrapped 0 keys; 2 needed nothing.\n"
    kids = [key["kid"] for key in _listed(alone)]
    assert _actions(alone) == [("key.rewrapped", "operator", kid) for kid in kids]


def test_rewrap_does_not_give_a_retired_key_its_private_half_back(
    settings: Callable[..., Settings], stores: Stores
) -> None:
    both = settings(key_encryption_keys=f"{_new_encryption_key()},{stores.encryption_key}")
    first, second = (key["kid"] for key in _listed(both))

    async def retire_meanwhile(connection: Any) -> Any:
        async with connection.transaction():
            await connection.execute("UPDATE signing_keys SET private_key = NULL WHERE kid = $1", first)
            process = spawn("keys", "rewrap", "--json", env=environment(both))
            await _until_somebody_waits(connection)
        return process

    process = _connected(both, retire_meanwhile)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert json.loads(out) == {"rewrapped": 1, "unchanged": 1}
    rows = {row["kid"]: row["private_key"] for row in _sql(both, "SELECT kid, private_key FROM signing_keys")}
    assert rows[first] is None
    assert rows[second] is not None


def test_rewrap_killed_in_the_middle_loses_nothing_and_a_second_run_finishes(
    settings: Callable[..., Settings], stores: Stores
) -> None:
    new = _new_encryption_key()
    both = settings(key_encryption_keys=f"{new},{stores.encryption_key}")
    first, second = (key["kid"] for key in _listed(both))
    before = _private_keys(both, stores.encryption_key)

    async def kill_in_the_middle(connection: Any) -> None:
        async with connection.transaction():
            await connection.execute("SELECT 1 FROM signing_keys WHERE kid = $1 FOR UPDATE", second)
            process = spawn("keys", "rewrap", env=environment(both))
            try:
                await _until_somebody_waits(connection)
            finally:
                process.send_signal(signal.SIGKILL)
                process.communicate(timeout=30)

    _connected(both, kill_in_the_middle)
    after = {row["kid"]: row["private_key"] for row in _sql(both, "SELECT kid, private_key FROM signing_keys")}
    assert Fernet(new).decrypt(after[first]) == before[first], "done, and whole"
    assert Fernet(stores.encryption_key).decrypt(after[second]) == before[second], "not begun, and whole"
    assert command("check", settings=both).code == 0
    done = command("keys", "rewrap", "--json", settings=both)
    assert (done.code, json.loads(done.out)) == (0, {"rewrapped": 1, "unchanged": 1})
    assert _private_keys(both, new) == before


def _private_keys(settings: Settings, encryption_key: str) -> dict[str, bytes]:
    rows = _sql(settings, "SELECT kid, private_key FROM signing_keys")
    return {row["kid"]: Fernet(encryption_key).decrypt(row["private_key"]) for row in rows}


async def _until_somebody_waits(connection: Any) -> None:
    """Return once another waits for a lock that this connection holds."""
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
    deadline = time.monotonic() + _PATIENCE
    while not await connection.fetchval(waiting):
        assert time.monotonic() < deadline, "nobody waits"
        await asyncio.sleep(0.02)
