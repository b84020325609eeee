"""The stored signing key: made once, encrypted, never overwritten; and the Redis that the service refuses to run on."""

import asyncio
import json
import re
import secrets
import subprocess
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from redis import Redis

from auth_service.devstack.process import free_port
from auth_service.devstack.redis import PrivateRedis
from auth_service.settings import Settings
from tests.support.command import command, environment, spawn, spawned, wait_for_status
from tests.support.processes import ServedProcess
from tests.support.service import running_service
from tests.support.stores import Stores
from tests.support.tokens import base64url, header_of

_AT_ONCE = 8


@pytest.fixture
def keyless(stores: Stores) -> Iterator[Settings]:
    """Settings for a migrated database without any signing key."""
    url = stores.new_database(empty=True)
    settings = stores.settings(database_url=url)
    assert command("migrate", settings=settings).code == 0
    yield settings
    stores.drop(url)


def _rows(settings: Settings) -> list[Any]:
    async def run() -> list[Any]:
        connection = await asyncpg.connect(settings.database_url.get_secret_value())
        try:
            return [dict(row) for row in await connection.fetch("SELECT * FROM signing_keys ORDER BY kid")]
        finally:
            await connection.close()

    return asyncio.run(run())


def _new_encryption_key() -> str:
    return urlsafe_b64encode(secrets.token_bytes(32)).decode()


async def test_eight_processes_started_at_once_make_one_signing_key_and_one_standby(
    keyless: Settings, tmp_path: Path
) -> None:
    connection = await asyncpg.connect(keyless.database_url.get_secret_value())
    processes = []
    try:
        # Nobody may write before several have seen that there is no key: a machine with few cores starts them in turn.
        async with connection.transaction():
            await connection.execute("LOCK TABLE signing_keys IN SHARE MODE")
            processes = [ServedProcess(keyless, tmp_path) for _ in range(_AT_ONCE)]
            await _until_waiting(connection, _AT_ONCE // 2)
        for process in processes:
            await asyncio.to_thread(process.wait_until_started)
        async with httpx2.AsyncClient() as client:
            published = [(await client.get(f"{one.url}/.well-known/jwks.json")).json()["keys"] for one in processes]
        rows = await connection.fetch("SELECT kid, signs_from, signs_until FROM signing_keys ORDER BY signs_from")
        assert [[key["kid"] for key in keys] for keys in published] == [[row["kid"] for row in rows]] * _AT_ONCE
        signing, standby = rows
        assert standby["signs_from"] == signing["signs_until"]
    finally:
        await connection.close()
        for process in processes:
            await asyncio.to_thread(process.stop)


async def _until_waiting(connection: Any, count: int, *, seconds: float = 60) -> None:
    """Return once so many others wait for a lock in this database."""
    deadline = time.monotonic() + seconds
    while True:
        [row] = await connection.fetch(
            # Not by pg_stat_activity: that stands still for as long as our own transaction lasts.
            "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        if row["count"] >= count:
            return
        assert time.monotonic() < deadline, f"{row['count']} wait"
        await asyncio.sleep(0.02)


def test_the_private_half_is_stored_encrypted(stores: Stores, settings: Callable[..., Settings]) -> None:
    row, _ = _rows(settings())
    der = Fernet(stores.encryption_key).decrypt(row["private_key"])
    key = load_der_private_key(der, password=None)
    assert isinstance(key, RSAPrivateKey)
    numbers = key.private_numbers()
    stored = b"\n".join(value if isinstance(value, bytes) else str(value).encode() for value in row.values())
    for member in (numbers.d, numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp):
        raw = member.to_bytes((member.bit_length() + 7) // 8, "big")
        for written in (raw, raw[:32], base64url(raw).encode(), raw.hex().encode(), str(member).encode()):
            assert written not in stored
    assert der not in stored
    assert key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) not in stored
    assert b"PRIVATE" not in stored


async def test_a_new_encryption_key_is_put_first_and_the_old_one_still_decrypts(
    stores: Stores, settings: Callable[..., Settings]
) -> None:
    # Added last everywhere, then moved first: at each step every process reads the stored key.
    new, old = _new_encryption_key(), stores.encryption_key
    for keys in (f"{old},{new}", f"{new},{old}"):
        changed = settings(key_encryption_keys=keys)
        assert (await asyncio.to_thread(command, "check", settings=changed)).code == 0
        async with running_service(changed) as service:
            user = await service.register(username=f"user{keys[:4]}", email=f"{keys[:8]}@example.com")
            row, _ = await service.sql("SELECT kid FROM signing_keys ORDER BY signs_from")
            assert header_of(user.access_token)["kid"] == row["kid"]


def test_a_wrong_encryption_key_is_refused_and_nothing_overwritten(
    settings: Callable[..., Settings], stores: Stores
) -> None:
    before = _rows(settings())
    wrong = settings(key_encryption_keys=_new_encryption_key())
    done = spawned("serve", env=environment(wrong))
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("Error: refusing to start:\n")
    assert "AUTH_KEY_ENCRYPTION_KEYS" in done.err
    found = command("check", "--json", settings=wrong)
    assert found.code == 1
    assert [row["state"] for row in json.loads(found.out) if row["subject"] == "keys"] == ["wrong"]
    for text in (done.err, found.out):
        assert not any(key.get_secret_value() in text for key in wrong.key_encryption_keys)
    assert _rows(settings()) == before


def test_a_stored_key_that_was_tampered_with_is_refused(
    settings: Callable[..., Settings], keyless: Settings, stores: Stores
) -> None:
    async def put(private_key: bytes) -> None:
        connection = await asyncpg.connect(keyless.database_url.get_secret_value())
        await connection.execute("DELETE FROM signing_keys")
        await connection.execute(
            "INSERT INTO signing_keys VALUES ($1, $2, $3, $4, $5)",
            row["kid"], row["public_key"], private_key, row["created_at"], row["signs_from"],
        )  # fmt: skip
        await connection.close()

    row, _ = _rows(settings())
    asyncio.run(put(row["private_key"]))
    assert command("check", settings=keyless).code == 0
    asyncio.run(put(row["private_key"][:-2] + b"=="))
    done = command("check", settings=keyless)
    assert done.code == 1
    assert re.search(r"^keys +wrong", done.out, re.M)


def test_check_makes_no_key(keyless: Settings) -> None:
    done = command("check", settings=keyless)
    assert done.code == 0
    assert re.search(r"^keys +ok +none yet", done.out, re.M)
    assert _rows(keyless) == []


@pytest.fixture(scope="module")
def evicting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRedis]:
    """A Redis that drops whatever it likes when its memory is full."""
    with ExitStack() as stack:
        redis = PrivateRedis(tmp_path_factory.mktemp("evicting"))
        redis.start()
        stack.callback(redis.stop)
        yield redis


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_redis_that_evicts_is_refused_unless_a_setting_lifts_it(
    evicting: PrivateRedis, settings: Callable[..., Settings], policy: str
) -> None:
    with Redis.from_url(evicting.url()) as redis:
        redis.config_set("maxmemory-policy", policy)
    refused = settings(redis_url=evicting.url())
    for name in ("check", "serve"):
        done = command(name, settings=refused)
        assert done.code == 1
        said = done.out + done.err
        assert f"maxmemory-policy is {policy}" in said
        assert "noeviction" in said
        assert "AUTH_ALLOW_INSECURE=evicting_redis" in said
    assert command("check", settings=settings(redis_url=evicting.url(), allow_insecure="evicting_redis")).code == 0


def test_serve_starts_on_an_evicting_redis_that_was_allowed(
    evicting: PrivateRedis, settings: Callable[..., Settings]
) -> None:
    with Redis.from_url(evicting.url()) as redis:
        redis.config_set("maxmemory-policy", "allkeys-lru")
    port = free_port()
    allowed = settings(
        redis_url=evicting.url(),
        allow_insecure="evicting_redis",
        listen=f"127.0.0.1:{free_port()}",
        internal_listen=f"127.0.0.1:{port}",
    )
    process = spawn("serve", env=environment(allowed), stderr=subprocess.STDOUT)
    try:
        assert wait_for_status(f"http://127.0.0.1:{port}/readyz", 200, process) == 200
    finally:
        process.terminate()
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, out
