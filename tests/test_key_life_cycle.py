"""The life cycle of the signing keys as a service and its callers see it: rotation, retirement, revocation, removal."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from joserfc.jwk import RSAKey

from auth_service.audit import OPERATOR
from auth_service.errors import NotFound
from auth_service.jobs import run_step
from auth_service.keys.encryption import WrongEncryptionKey
from auth_service.keys.schedule import PUBLISHED_AFTER, PUBLISHED_BEFORE, SWITCH_NOTICE, UNDER_WAY
from auth_service.parts import Parts
from auth_service.settings import Settings
from auth_service.stores.clock import Clock
from auth_service.verifier.errors import RevokedToken
from tests.support.service import PASSWORD, WINDOW, Service, SignedIn, Start, problem, running_service
from tests.support.tokens import header_of

_DAY = 86_400
_PATIENCE = 10.0  # seconds
_ANOTHER_ENCRYPTION_KEY = "YW5vdGhlciBrZXksIG9mIHRoaXJ0eS10d28gYnl0ZXM="


async def _eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def _states(service: Service) -> dict[str, str]:
    """State by kid, oldest first."""
    now, lives = await service.app.parts.key_life_cycle.list()
    return {life.kid: life.state(now) for life in lives}


async def _published(service: Service) -> list[str]:
    return [key["kid"] for key in (await service.http.get("/.well-known/jwks.json")).json()["keys"]]


async def _do_what_is_due(service: Service) -> None:
    """One step of the job, and then a reload."""
    parts = service.app.parts
    await run_step(parts.database, parts.key_life_cycle.job)
    service.app.key_follower.hold(await parts.key_store.load())


async def _actions(service: Service) -> list[tuple[str, str, str]]:
    rows = await service.sql("SELECT action, actor_kind, target_id FROM audit_events ORDER BY id")
    return [tuple(row) for row in rows if row["action"].startswith("key.")]


async def test_a_key_signs_retires_and_is_removed_and_no_good_token_is_refused(service: Service) -> None:
    first, second = await _states(service)
    user = await service.register()
    assert header_of(user.access_token)["kid"] == first
    [row] = await service.sql("SELECT signs_until FROM signing_keys WHERE kid = $1", first)
    service.clock.offset += row["signs_until"] - await service.app.parts.database.now() - timedelta(seconds=300)
    user, sleeping = await service.login(user), await service.login(user)
    service.advance(seconds=301)

    # By time alone: nobody has done anything yet.
    late = await service.login(user)
    assert header_of(late.access_token)["kid"] == header_of(late.refresh_token)["kid"] == second
    for one in (user, late):
        assert (await service.me(one.access_token)).status_code == 200
        assert (await service.refresh(one.refresh_token)).status_code == 200

    service.advance(seconds=UNDER_WAY.total_seconds())
    await _do_what_is_due(service)
    *_, third = await _states(service)
    assert await _states(service) == {first: "retired", second: "signing", third: "standby"}
    metrics = (await service.internal.get("/metrics")).text
    for state in ("retired", "signing", "standby"):
        assert f'auth_signing_keys{{state="{state}"}} 1.0' in metrics
    assert 60 <= float(re.findall(r"^auth_signing_key_age_seconds (.*)$", metrics, re.M)[0]) < 120
    [retired] = await service.sql("SELECT private_key FROM signing_keys WHERE kid = $1", first)
    assert retired["private_key"] is None
    assert await _published(service) == [first, second, third]
    assert (await service.me(user.access_token)).status_code == 200

    service.advance(seconds=PUBLISHED_AFTER.total_seconds())
    await _do_what_is_due(service)
    assert await _published(service) == [second, third], "the last access token that it signed is past"
    service.advance(seconds=6 * _DAY)
    await _do_what_is_due(service)
    assert (await service.refresh(sleeping.refresh_token)).status_code == 200, "its refresh tokens live longer"

    service.advance(seconds=1 * _DAY)
    await _do_what_is_due(service)
    assert await _states(service) == {second: "signing", third: "standby"}
    assert await _actions(service) == [
        ("key.added", "service", third),
        ("key.retired", "service", first),
        ("key.removed", "service", first),
    ]


async def test_rotate_has_the_standby_sign_once_it_was_published_for_two_max_ages(service: Service) -> None:
    first, second = await _states(service)
    await service.sql("UPDATE signing_keys SET created_at = clock_timestamp() WHERE kid = $1", second)
    life_cycle = service.app.parts.key_life_cycle
    now = await service.app.parts.database.now()
    switch = await life_cycle.rotate(by=OPERATOR)
    assert (switch.kid, switch.hastened) == (second, True)
    assert timedelta(seconds=-5) < switch.signs_from - now - PUBLISHED_BEFORE < timedelta(seconds=5)
    again = await life_cycle.rotate(by=OPERATOR)
    assert (again.kid, again.signs_from, again.hastened) == (second, switch.signs_from, False)

    service.app.key_follower.hold(await service.app.parts.key_store.load())
    service.advance(seconds=PUBLISHED_BEFORE.total_seconds() - 10)
    assert header_of((await service.register()).access_token)["kid"] == first
    service.advance(seconds=15)
    assert header_of((await service.register()).access_token)["kid"] == second
    assert await _actions(service) == [("key.rotated", "operator", second)]


async def test_a_standby_that_all_know_signs_as_soon_as_every_process_has_heard_of_it(service: Service) -> None:
    _, second = await _states(service)
    service.advance(seconds=PUBLISHED_BEFORE.total_seconds())
    switch = await service.app.parts.key_life_cycle.rotate(by=OPERATOR)
    assert switch.signs_from - await service.app.parts.database.now() <= SWITCH_NOTICE
    states = await _states(service)
    assert list(states.values()) == ["signing", "standby", "standby"], "the one after it is published already"
    service.app.key_follower.hold(await service.app.parts.key_store.load())
    service.advance(seconds=SWITCH_NOTICE.total_seconds())
    assert header_of((await service.register()).access_token)["kid"] == second


async def test_what_a_revoked_key_has_signed_is_refused_and_another_signs(service: Service) -> None:
    first, second = await _states(service)
    user = await service.register()
    parts = service.app.parts
    assert await parts.key_revocation.revoke(first, by=OPERATOR)
    service.app.key_follower.hold(await parts.key_store.load())
    assert problem(await service.me(user.access_token)) == (401, "invalid_token")
    assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_revoked")

    *_, third = await _states(service)
    assert await _states(service) == {first: "revoked", second: "signing", third: "standby"}
    assert await _published(service) == [second, third]
    assert header_of((await service.login(user)).access_token)["kid"] == second
    [row] = await service.sql("SELECT private_key FROM signing_keys WHERE kid = $1", first)
    assert row["private_key"] is None
    assert [tuple(row) for row in await service.sql("SELECT kind, claim FROM revocations")] == [("k", first)]
    assert await _actions(service) == [("key.revoked", "operator", first), ("key.added", "service", third)]

    assert not await parts.key_revocation.revoke(first, by=OPERATOR), "a second time changes nothing"
    assert len(await _states(service)) == 3
    with pytest.raises(NotFound):
        await parts.key_revocation.revoke("no such key", by=OPERATOR)

    # Nothing publishes it again, and it is known for as long as its tokens could be shown.
    service.advance(seconds=6 * _DAY)
    await _do_what_is_due(service)
    assert (await _states(service))[first] == "revoked"
    assert first not in await _published(service)
    service.advance(seconds=2 * _DAY)
    await _do_what_is_due(service)
    assert first not in await _states(service)


async def test_a_service_whose_connections_are_all_taken_hears_of_a_revoked_key(service: Service) -> None:
    first, _ = await _states(service)
    async with AsyncExitStack() as taken:
        parts = Parts(service.settings, service.clock)
        await parts.open()
        taken.push_async_callback(parts.close)
        for _ in range(16):
            await taken.enter_async_context(service.app.parts.database.transaction())
        await parts.key_revocation.revoke(first, by=OPERATOR)
        answered = time.monotonic()
        while not await _is_revoked(service, first):
            assert time.monotonic() < answered + 2
            await asyncio.sleep(0.02)


async def _is_revoked(service: Service, kid: str) -> bool:
    try:
        await service.app.parts.keys.public_key(kid)
    except RevokedToken:
        return True
    return False


async def test_a_revoked_standby_never_signs_and_is_replaced(service: Service) -> None:
    first, second = await _states(service)
    user = await service.register()
    await service.app.parts.key_revocation.revoke(second, by=OPERATOR)
    service.app.key_follower.hold(await service.app.parts.key_store.load())
    assert list((await _states(service)).values()) == ["signing", "revoked", "standby"]
    assert header_of((await service.login(user)).access_token)["kid"] == first
    assert (await service.me(user.access_token)).status_code == 200
    assert second not in await _published(service)


async def test_sessions_are_ended_with_the_key_on_request_and_later_ones_are_not(service: Service) -> None:
    users = [await service.register() for _ in range(3)]
    await service.sql(
        "INSERT INTO sessions (id, user_id, client_id, transport, scope, created_at, expires_at, last_used_at)"
        " SELECT gen_random_uuid(), user_id, client_id, transport, scope, created_at, expires_at, last_used_at"
        " FROM generate_series(1, 1000), (SELECT * FROM sessions LIMIT 1) AS session"
    )
    told: list[tuple[int, int]] = []
    ended = await service.app.parts.ending.end_every(
        reason="key_revoked", by=OPERATOR, progress=lambda done, live: told.append((done, live))
    )
    assert ended == 1003
    assert told == [(500, 1003), (1000, 1003), (1003, 1003)]
    for user in users:
        assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_revoked")
    assert len(await service.sql("SELECT 1 FROM revocations WHERE kind = 's'")) == 1003
    assert (await service.refresh((await service.login(users[0])).refresh_token)).status_code == 200
    events = await service.sql("SELECT actor_kind, details FROM audit_events WHERE action = 'session.revoked'")
    assert [event["actor_kind"] for event in events] == ["operator"] * 1003
    assert all('"reason": "key_revoked"' in event["details"] for event in events)


async def test_a_process_that_cannot_decrypt_the_key_that_is_due_signs_with_no_other(
    settings: Callable[..., Settings], stores: Any
) -> None:
    clock = Clock()
    old = settings()
    new = old.model_copy(
        update={"key_encryption_keys": settings(
            key_encryption_keys=f"{_ANOTHER_ENCRYPTION_KEY},{stores.encryption_key}"
        ).key_encryption_keys}
    )  # fmt: skip
    async with running_service(old, clock) as service, running_service(new, clock) as other:
        first, second = await _states(service)
        user = await service.register()
        # Whoever knows the new encryption key makes the next standby under it.
        await other.sql("DELETE FROM signing_keys WHERE kid = $1", second)
        await _do_what_is_due(other)
        _, unreadable = await _states(other)
        await _eventually(lambda: _is_published(service, unreadable))
        assert header_of((await service.login(user)).access_token)["kid"] == first

        stored = await other.sql("SELECT * FROM signing_keys")
        with pytest.raises(WrongEncryptionKey):
            await run_step(service.app.parts.database, service.app.parts.key_life_cycle.job)
        with pytest.raises(WrongEncryptionKey):
            await service.app.parts.key_life_cycle.rotate(by=OPERATOR)
        assert await other.sql("SELECT * FROM signing_keys") == stored

        service.advance(seconds=31 * _DAY)
        user = await other.register(username="ada", email="ada@example.com")
        assert header_of(user.access_token)["kid"] == unreadable
        assert (await service.me(user.access_token)).status_code == 200, "it verifies all the same"
        assert problem(await service.refresh(user.refresh_token)) == (503, "unavailable")
        service.advance(seconds=WINDOW + 1)
        assert (await other.refresh(user.refresh_token)).status_code == 200, "and nothing was spent"

        # Once that key is encrypted under one that it has, it goes on by itself.
        await other.sql(
            "UPDATE signing_keys SET private_key = $2 WHERE kid = $1", unreadable, _rewrapped(service, other, stored)
        )
        await _eventually(lambda: _refreshes(service, user.refresh_token))


def _rewrapped(service: Service, other: Service, stored: list[Any]) -> bytes:
    [encrypted] = [row["private_key"] for row in stored if row["signs_from"] == max(r["signs_from"] for r in stored)]
    return service.app.parts.key_cipher.encrypt(other.app.parts.key_cipher.decrypt(encrypted))


async def _is_published(service: Service, kid: str) -> bool:
    return kid in await _published(service)


async def _refreshes(service: Service, refresh_token: str) -> bool:
    return (await service.refresh(refresh_token)).status_code == 200


async def test_the_key_of_an_older_schema_goes_on_and_is_followed_by_a_standby(start: Start, database: str) -> None:
    connection = await asyncpg.connect(database)
    [kid, _] = [row["kid"] for row in await connection.fetch("SELECT kid FROM signing_keys ORDER BY signs_from")]
    await connection.execute("DELETE FROM signing_keys WHERE kid <> $1", kid)
    await connection.execute(
        "UPDATE signing_keys SET signs_until = NULL, refresh_token_life = DEFAULT,"
        " created_at = created_at - interval '99 days', signs_from = signs_from - interval '99 days'"
    )
    await connection.close()
    service = await start()
    assert list((await _states(service)).values()) == ["signing", "standby"]
    user = await service.register()
    assert header_of(user.access_token)["kid"] == kid
    service.advance(seconds=PUBLISHED_BEFORE.total_seconds() - 5)
    assert header_of((await service.login(user)).access_token)["kid"] == kid, "until its successor is known everywhere"
    service.advance(seconds=120)
    assert header_of((await service.login(user)).access_token)["kid"] != kid
    assert (await service.refresh(user.refresh_token)).status_code == 200


async def test_past_the_end_of_every_key_nothing_is_signed_until_somebody_has_looked(service: Service) -> None:
    _, second = await _states(service)
    user = await service.register()
    service.advance(seconds=61 * _DAY)
    assert problem(await service.http.post("/user/login", json=_credentials(user))) == (503, "unavailable")
    await _do_what_is_due(service)
    assert header_of((await service.login(user)).access_token)["kid"] == second, "the one that is known to all goes on"
    *_, third = await _states(service)
    assert (await _states(service))[third] == "standby"


def _credentials(user: SignedIn) -> dict[str, str]:
    return {"email": user.email, "password": PASSWORD}


async def test_whoever_rotates_and_revokes_at_once_does_it_one_after_the_other(service: Service) -> None:
    first, second = await _states(service)
    service.advance(seconds=PUBLISHED_BEFORE.total_seconds())
    async with AsyncExitStack() as stack:
        several = []
        for _ in range(3):
            several.append(Parts(service.settings, service.clock))
            await several[-1].open()
            stack.push_async_callback(several[-1].close)
        switches = await asyncio.gather(*(parts.key_life_cycle.rotate(by=OPERATOR) for parts in several))
        assert sorted(switch.hastened for switch in switches) == [False, False, True]
        assert {(switch.kid, switch.signs_from) for switch in switches} == {(second, switches[0].signs_from)}
        await asyncio.gather(*(run_step(parts.database, parts.key_life_cycle.job) for parts in several))
        revoked = await asyncio.gather(*(parts.key_revocation.revoke(first, by=OPERATOR) for parts in several))
    assert sorted(revoked) == [False, False, True]
    states = list((await _states(service)).values())
    assert (states.count("signing"), states.count("revoked"), states.count("standby")) == (1, 1, 1)
    assert (await _states(service))[second] == "signing"


@pytest.mark.parametrize("bits", [3072, 4096])
async def test_new_keys_are_of_the_size_that_is_set(start: Start, database: str, bits: int) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("DELETE FROM signing_keys WHERE signs_from = (SELECT max(signs_from) FROM signing_keys)")
    await connection.close()
    service = await start(rsa_key_size=bits)
    _, standby = (await service.http.get("/.well-known/jwks.json")).json()["keys"]
    assert RSAKey.import_key(standby).raw_value.key_size == bits
    service.advance(seconds=31 * _DAY)
    user = await service.register()
    assert header_of(user.access_token)["kid"] == standby["kid"]
    assert (await service.me(user.access_token)).status_code == 200
