"""Redis loses what it held: flushed, rolled back, with and without the checkpoint. Nobody is logged out by it, and
nothing that has ended comes back."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import pytest

from auth_service.settings import Settings
from tests.support.proxy import Proxy
from tests.support.service import PASSWORD, WINDOW, Service, problem, running_service
from tests.support.stores import Stores
from tests.support.tokens import claims_of, generation_of

_COOKIE = "__Host-refresh_token"
_APP = {"Origin": "https://app.test"}

_SOMETHING_ELSE = (
    *(b"", b"x", b"99", b"99 ", b" 99 99", b"-1 5", b"99 -5", b"99.5 7", b"99 x", b"99,7", b"nan inf", b"0x99 0x99"),
    b'{"generation": 99}',
    b"\x00\xff\xfe 99",
)
"""None of them is a generation and its time, though most hold a number higher than any that was given out."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """One session's key as it was at a moment, to be put back later."""

    name: str
    value: bytes
    life: int
    """Milliseconds."""


def _key(refresh_token: str) -> str:
    return f"auth:session:{claims_of(refresh_token)['sid']}"


async def _keep(service: Service, refresh_token: str) -> _Kept:
    name = _key(refresh_token)
    value = await service.redis.get(name)
    life = await service.redis.pttl(name)
    assert isinstance(value, bytes)
    assert life > 0
    return _Kept(name, value, life)


async def _roll_back(service: Service, kept: _Kept) -> None:
    await service.redis.set(kept.name, kept.value, px=kept.life)


async def _lose_checkpoint(service: Service, *, generation: int = 1) -> None:
    """As if what was written behind had never been: first let the writer finish, or it would write it again."""
    await service.flush_checkpoints()
    await service.sql(
        "UPDATE sessions SET generation = $1, rotated_at = CASE WHEN $1 > 1 THEN rotated_at END", generation
    )


async def _adoptions(service: Service) -> float:
    lines = (await service.internal.get("/metrics")).text.splitlines()
    [value] = [line.split()[1] for line in lines if line.startswith('auth_refreshes_total{outcome="adopted"}')] or ["0"]
    return float(value)


@asynccontextmanager
async def _cut_off(stores: Stores, make: Callable[..., Settings]) -> AsyncIterator[tuple[Service, Service, Proxy]]:
    """A service whose Redis can be cut off, another one beside it whose Redis cannot, and what is in between."""
    parts = urlsplit(stores.redis_url)
    assert parts.port is not None
    proxy = Proxy(parts.port)
    try:
        behind = make(
            redis_url=urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{proxy.port}")))
        )
        async with running_service(behind) as service, running_service(make()) as other:
            # It has seen how Redis's clock goes, so what it sends is carried out the first time.
            await service.refreshed((await other.register()).refresh_token)
            yield service, other, proxy
    finally:
        proxy.close()


async def _has_rotated(service: Service, refresh_token: str) -> None:
    deadline = time.monotonic() + 10
    while await service.redis.get(_key(refresh_token)) is None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def _advance(*services: Service) -> None:
    for service in services:
        service.advance(seconds=WINDOW + 1)


async def test_a_rotation_that_redis_could_tell_nobody_of_costs_no_session_however_long_redis_is_away(
    stores: Stores, settings: Callable[..., Settings]
) -> None:
    async with _cut_off(stores, settings) as (service, other, proxy):
        user = await other.register()
        proxy.hold("to_client")  # Redis hears, and is not heard
        assert problem(await service.refresh(user.refresh_token)) == (503, "unavailable")
        await _has_rotated(other, user.refresh_token)
        _advance(service, other)
        assert problem(await service.refresh(user.refresh_token)) == (503, "unavailable")
        _advance(service, other)
        proxy.cut()
        proxy.release("to_client")
        second = await service.refreshed(user.refresh_token)
        assert generation_of(second) == 2
        # Now that somebody has it, its parent is what any parent is.
        assert generation_of(await other.refreshed(user.refresh_token)) == 2
        await service.flush_checkpoints()
        await other.flush_checkpoints()
        _advance(service, other)
        assert problem(await other.refresh(user.refresh_token)) == (401, "refresh_token_reused")
        assert problem(await service.refresh(second)) == (401, "refresh_token_revoked")


async def test_a_rotation_that_redis_told_only_in_a_replay_is_known_to_somebody(
    stores: Stores, settings: Callable[..., Settings]
) -> None:
    async with _cut_off(stores, settings) as (service, other, proxy):
        user = await other.register()
        proxy.hold("to_client")
        under_way = asyncio.create_task(service.refresh(user.refresh_token))
        await _has_rotated(other, user.refresh_token)
        second = await other.refreshed(user.refresh_token)
        assert problem(await under_way) == (503, "unavailable")
        proxy.cut()
        proxy.release("to_client")
        await other.flush_checkpoints()
        _advance(service, other)
        assert problem(await other.refresh(user.refresh_token)) == (401, "refresh_token_reused")
        assert problem(await other.refresh(second)) == (401, "refresh_token_revoked")


@pytest.mark.parametrize("later", [1, WINDOW + 1])
@pytest.mark.parametrize("checkpointed", [True, False])
async def test_a_flush_between_two_refreshes_logs_nobody_out(service: Service, checkpointed: bool, later: int) -> None:
    user, neighbour = await service.register(), await service.register()
    tokens = [await service.refreshed(user.refresh_token), await service.refreshed(neighbour.refresh_token)]
    await (service.flush_checkpoints() if checkpointed else _lose_checkpoint(service))
    await service.flush_redis()
    service.advance(seconds=later)
    answered = [await service.refreshed(token) for token in tokens]
    expected = 3 if checkpointed and later > WINDOW else 2
    assert [generation_of(token) for token in answered] == [expected, expected]
    service.advance(seconds=WINDOW + 1)
    assert [generation_of(await service.refreshed(token)) for token in answered] == [expected + 1, expected + 1]


async def test_a_flush_before_the_first_refresh_logs_nobody_out(service: Service) -> None:
    user = await service.register()
    await service.flush_redis()
    assert generation_of(await service.refreshed(user.refresh_token)) == 2


async def test_a_flush_does_not_open_a_second_branch_for_the_parent(service: Service) -> None:
    user = await service.register()
    await service.refreshed(user.refresh_token)
    await service.flush_checkpoints()
    await service.flush_redis()
    assert generation_of(await service.refreshed(user.refresh_token)) == 2
    service.advance(seconds=WINDOW + 1)
    assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_reused")


async def test_a_logged_out_session_stays_out_after_a_flush(service: Service) -> None:
    user = await service.register()
    token = await service.refreshed(user.refresh_token)
    assert (await service.logout(token)).status_code == 204
    await service.flush_redis()
    for refresh_token in (user.refresh_token, token):
        assert problem(await service.refresh(refresh_token)) == (401, "refresh_token_revoked")
    assert problem(await service.me(user.access_token)) == (401, "invalid_token")


async def test_a_logged_out_session_stays_out_when_its_old_key_is_put_back(service: Service) -> None:
    user = await service.register()
    token = await service.refreshed(user.refresh_token)
    kept = await _keep(service, token)
    assert (await service.logout(token)).status_code == 204
    assert await service.redis.exists(kept.name) == 0
    await _roll_back(service, kept)
    for refresh_token in (user.refresh_token, token):
        assert problem(await service.refresh(refresh_token)) == (401, "refresh_token_revoked")
    assert problem(await service.me(user.access_token)) == (401, "invalid_token")


async def test_a_session_that_reuse_has_ended_stays_so_after_a_flush(service: Service) -> None:
    user = await service.register()
    token = await service.refreshed(user.refresh_token)
    service.advance(seconds=WINDOW + 1)
    assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_reused")
    await service.flush_redis()
    assert problem(await service.refresh(token)) == (401, "refresh_token_revoked")


@pytest.mark.parametrize("later", [1, WINDOW + 1])
async def test_after_a_flush_a_generation_two_below_the_checkpoint_is_reuse(service: Service, later: int) -> None:
    user = await service.register()
    second = await service.refreshed(user.refresh_token)
    service.advance(seconds=WINDOW + 1)
    third = await service.refreshed(second)
    await service.flush_checkpoints()
    await service.flush_redis()
    service.advance(seconds=later)
    assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_reused")
    assert problem(await service.refresh(third)) == (401, "refresh_token_revoked")


@pytest.mark.parametrize("later", [0, WINDOW + 1])
@pytest.mark.parametrize("checkpointed", [True, False])
async def test_after_a_rollback_the_owners_newer_token_goes_on(
    service: Service, checkpointed: bool, later: int
) -> None:
    user = await service.register()
    second = await service.refreshed(user.refresh_token)
    kept = await _keep(service, second)
    service.advance(seconds=WINDOW + 1)
    third = await service.refreshed(second)
    await (service.flush_checkpoints() if checkpointed else _lose_checkpoint(service))
    await _roll_back(service, kept)
    service.advance(seconds=later)
    answered = await service.refreshed(third)
    assert generation_of(answered) == (4 if checkpointed and later else 3)
    service.advance(seconds=WINDOW + 1)
    assert generation_of(await service.refreshed(answered)) == generation_of(answered) + 1


@pytest.mark.parametrize("checkpointed", [True, False])
async def test_after_a_rollback_an_older_token_past_the_window_is_reuse(service: Service, checkpointed: bool) -> None:
    user = await service.register()
    second = await service.refreshed(user.refresh_token)
    kept = await _keep(service, second)
    service.advance(seconds=WINDOW + 1)
    third = await service.refreshed(second)
    await (service.flush_checkpoints() if checkpointed else _lose_checkpoint(service))
    await _roll_back(service, kept)
    # The owner comes first; that alone tells a service that has lost both copies of the third generation.
    assert generation_of(await service.refreshed(third)) == 3
    service.advance(seconds=WINDOW + 1)
    assert problem(await service.refresh(second)) == (401, "refresh_token_reused")
    assert problem(await service.refresh(third)) == (401, "refresh_token_revoked")


async def test_after_a_rollback_the_checkpoint_alone_knows_an_older_token(service: Service) -> None:
    user = await service.register()
    second = await service.refreshed(user.refresh_token)
    kept = await _keep(service, second)
    service.advance(seconds=WINDOW + 1)
    third = await service.refreshed(second)
    await service.flush_checkpoints()
    await _roll_back(service, kept)
    service.advance(seconds=WINDOW + 1)
    assert problem(await service.refresh(second)) == (401, "refresh_token_reused")
    assert problem(await service.refresh(third)) == (401, "refresh_token_revoked")


@pytest.mark.parametrize("checkpointed", [True, False])
async def test_after_a_rollback_a_token_older_than_what_is_left_is_reuse(service: Service, checkpointed: bool) -> None:
    user = await service.register()
    second = await service.refreshed(user.refresh_token)
    service.advance(seconds=WINDOW + 1)
    third = await service.refreshed(second)
    kept = await _keep(service, third)
    service.advance(seconds=WINDOW + 1)
    fourth = await service.refreshed(third)
    await (service.flush_checkpoints() if checkpointed else _lose_checkpoint(service))
    await _roll_back(service, kept)
    assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_reused")
    assert problem(await service.refresh(fourth)) == (401, "refresh_token_revoked")


async def test_with_redis_flushed_and_the_checkpoint_lost_the_newer_token_is_adopted(service: Service) -> None:
    user = await service.register()
    second = await service.refreshed(user.refresh_token)
    service.advance(seconds=WINDOW + 1)
    third = await service.refreshed(second)
    await _lose_checkpoint(service)
    await service.flush_redis()
    before = await _adoptions(service)
    assert generation_of(await service.refreshed(third)) == 3
    assert await _adoptions(service) == before + 1
    # Adopted for good: the next use is held, its parent is answered inside the window, and both stores know it.
    assert generation_of(await service.refreshed(third)) == 3
    assert generation_of(await service.refreshed(second)) == 3
    assert await _adoptions(service) == before + 1
    await service.flush_checkpoints()
    [row] = await service.sql("SELECT generation FROM sessions")
    assert row["generation"] == 3
    service.advance(seconds=WINDOW + 1)
    assert generation_of(await service.refreshed(third)) == 4


async def test_an_adopted_generation_dates_from_its_adoption(service: Service) -> None:
    user = await service.register()
    second = await service.refreshed(user.refresh_token)
    await _lose_checkpoint(service)
    await service.flush_redis()
    service.advance(seconds=WINDOW + 1)
    assert generation_of(await service.refreshed(second)) == 2
    service.advance(seconds=WINDOW - 1)
    assert generation_of(await service.refreshed(second)) == 2
    service.advance(seconds=2)
    assert generation_of(await service.refreshed(second)) == 3


async def test_a_key_that_holds_something_else_is_as_good_as_none(service: Service) -> None:
    user = await service.register()
    token = await service.refreshed(user.refresh_token)
    for value in _SOMETHING_ELSE:
        generation = generation_of(token)
        await service.flush_checkpoints()
        await service.redis.set(_key(token), value)
        assert generation_of(await service.refreshed(token)) == generation, value
        service.advance(seconds=WINDOW + 1)
        token = await service.refreshed(token)
        assert generation_of(token) == generation + 1, value
        assert await service.redis.pttl(_key(token)) > 0


async def test_a_key_of_another_type_is_as_good_as_none(service: Service) -> None:
    user = await service.register()
    second = await service.refreshed(user.refresh_token)
    await service.flush_checkpoints()
    await service.redis.delete(_key(second))
    await service.redis.rpush(_key(second), "2", "7")
    service.advance(seconds=WINDOW + 1)
    assert generation_of(await service.refreshed(second)) == 3


async def test_an_adopted_generation_sets_no_cookie(service: Service) -> None:
    async with service.client(headers=_APP) as browser:
        body = {"username": "ada", "email": "ada@example.com", "password": PASSWORD, "transport": "cookie"}
        assert (await browser.post("/user/register", json=body)).status_code == 201
        assert "set-cookie" in (await browser.post("/user/refresh-token")).headers
        await _lose_checkpoint(service)
        await service.flush_redis()
        before = await _adoptions(service)
        adopted = await browser.post("/user/refresh-token")
        assert adopted.status_code == 200
        assert await _adoptions(service) == before + 1
        assert "set-cookie" not in adopted.headers
        assert "refresh_token" not in adopted.json()
        assert (await service.me(adopted.json()["access_token"])).status_code == 200
        service.advance(seconds=WINDOW + 1)
        assert (await browser.post("/user/refresh-token")).status_code == 200
        assert generation_of(browser.cookies[_COOKIE]) == 3
