"""Refresh: what each use of each generation does, inside the replay window and after it."""

from datetime import UTC, datetime

import pytest

from tests.support.service import WINDOW, Service, problem
from tests.support.tokens import claims_of, generation_of


async def test_the_first_refresh_rotates_and_the_new_token_works(service: Service) -> None:
    user = await service.register()
    assert generation_of(user.refresh_token) == 1
    second = await service.refreshed(user.refresh_token)
    assert generation_of(second) == 2
    service.advance(seconds=WINDOW + 1)
    assert generation_of(await service.refreshed(second)) == 3


async def test_within_the_window_the_parent_is_given_the_current_generation(service: Service) -> None:
    user = await service.register()
    await service.refreshed(user.refresh_token)
    service.advance(seconds=WINDOW - 1)
    assert generation_of(await service.refreshed(user.refresh_token)) == 2


async def test_within_the_window_the_current_generation_is_held(service: Service) -> None:
    user = await service.register()
    second = await service.refreshed(user.refresh_token)
    service.advance(seconds=WINDOW - 1)
    assert generation_of(await service.refreshed(second)) == 2


async def test_the_window_does_not_slide(service: Service) -> None:
    user = await service.register()
    await service.refreshed(user.refresh_token)
    for _ in range(3):
        service.advance(seconds=WINDOW / 3 - 0.5)
        assert generation_of(await service.refreshed(user.refresh_token)) == 2
    service.advance(seconds=2)
    assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_reused")


async def test_a_rotated_token_after_the_window_ends_its_session_and_no_other(service: Service) -> None:
    user = await service.register()
    other = await service.login(user)
    newest = await service.refreshed(user.refresh_token)
    service.advance(seconds=WINDOW + 1)
    assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_reused")
    assert problem(await service.refresh(newest)) == (401, "refresh_token_revoked")
    assert problem(await service.me(user.access_token)) == (401, "invalid_token")
    assert (await service.refresh(other.refresh_token)).status_code == 200


@pytest.mark.parametrize("later", [1, WINDOW + 1])
async def test_a_grandparent_is_reuse_at_any_time(service: Service, later: int) -> None:
    user = await service.register()
    second = await service.refreshed(user.refresh_token)
    service.advance(seconds=WINDOW + 1)
    third = await service.refreshed(second)
    service.advance(seconds=later)
    assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_reused")
    assert problem(await service.refresh(third)) == (401, "refresh_token_revoked")


async def test_a_delayed_duplicate_after_its_successor_was_used_is_answered(service: Service) -> None:
    user = await service.register()
    second = await service.refreshed(user.refresh_token)
    service.advance(seconds=5)
    assert generation_of(await service.refreshed(second)) == 2
    service.advance(seconds=5)
    late = await service.refreshed(user.refresh_token)
    assert generation_of(late) == 2
    service.advance(seconds=WINDOW)
    assert generation_of(await service.refreshed(late)) == 3


async def test_the_absolute_end_of_a_session_does_not_move(service: Service) -> None:
    user = await service.register()
    [row] = await service.sql("SELECT expires_at FROM sessions")
    token = user.refresh_token
    for _ in range(5):
        service.advance(seconds=6 * 86400 - 60)
        token = await service.refreshed(token)
    await service.flush_checkpoints()
    assert await service.sql("SELECT expires_at FROM sessions") == [row]
    assert claims_of(token)["exp"] == int(row["expires_at"].timestamp())
    service.advance(seconds=400)
    assert problem(await service.refresh(token)) == (401, "refresh_token_expired")


async def test_an_idle_session_expires(service: Service) -> None:
    user = await service.register()
    service.advance(seconds=7 * 86400)
    assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_expired")


async def test_an_access_token_never_outlives_its_session(service: Service) -> None:
    user = await service.register()
    token = user.refresh_token
    for _ in range(5):
        service.advance(seconds=6 * 86400 - 60)
        token = await service.refreshed(token)
    answer = await service.refresh(token)
    claims = claims_of(answer.json()["access_token"])
    [row] = await service.sql("SELECT expires_at FROM sessions")
    assert claims["exp"] == int(row["expires_at"].timestamp())
    assert answer.json()["expires_in"] == claims["exp"] - claims["iat"]


async def test_tokens_of_one_second_are_told_apart_by_their_generation(service: Service) -> None:
    user = await service.register()
    first_claims = claims_of(user.refresh_token)
    [row] = await service.sql("SELECT clock_timestamp() AS now")
    service.clock.offset = datetime.fromtimestamp(first_claims["iat"], UTC) - row["now"]  # back to that second
    second = await service.refreshed(user.refresh_token)
    second_claims = claims_of(second)
    told_apart = {name for name in first_claims if first_claims[name] != second_claims[name]}
    assert told_apart == {"gen", "jti"}
    service.advance(seconds=WINDOW + 1)
    third = await service.refreshed(second)
    service.advance(seconds=WINDOW + 1)
    assert generation_of(await service.refreshed(third)) == 4
    assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_reused")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE users SET disabled_at = now()",
        "UPDATE sessions SET revoked_at = now(), revoked_reason = 'logout'",
        "DELETE FROM sessions",
        "DELETE FROM users",
    ],
)
async def test_a_refresh_believes_the_user_and_the_session_as_they_are_now_and_not_its_token(
    service: Service, statement: str
) -> None:
    # Straight into the table: neither Redis nor the journal has been told.
    user = await service.register()
    newest = await service.refreshed(user.refresh_token)
    await service.sql(statement)
    for refresh_token in (newest, user.refresh_token):
        assert problem(await service.refresh(refresh_token)) == (401, "refresh_token_revoked")
    assert problem(await service.me(user.access_token)) == (401, "invalid_token")
