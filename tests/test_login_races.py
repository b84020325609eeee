"""Races on one account: logins against what changes or ends it, refreshes against a logout, registrations of a name."""

import asyncio
import hashlib
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from math import inf
from typing import Any, TypeVar
from uuid import UUID

import httpx2
import pytest

from auth_service.audit import OPERATOR
from tests.support.service import PASSWORD, Service, SignedIn, problem, signed_in
from tests.support.tokens import claims_of

_ROUNDS = 40
_NEW_PASSWORD = "the tortoise sleeps at noon"
_REFUSED = (401, "invalid_credentials")

_T = TypeVar("_T")

Change = Callable[[Service, UUID], Awaitable[None]]


async def _disable(service: Service, user_id: UUID) -> None:
    await service.app.parts.users.disable(user_id, by=OPERATOR)


async def _set_password(service: Service, user_id: UUID) -> None:
    await service.app.parts.users.set_password(user_id, _NEW_PASSWORD, by=OPERATOR)


async def _delete(service: Service, user_id: UUID) -> None:
    await service.app.parts.users.delete(user_id, by=OPERATOR)


changes = pytest.mark.parametrize("change", [_disable, _set_password, _delete], ids=["disable", "password", "delete"])


# In a fixed order: both wait for the user's row, which the test holds, and get it one after the other.


@changes
async def test_a_login_that_comes_after_a_change_is_refused_although_its_check_came_before(
    service: Service, change: Change
) -> None:
    user = await service.register()
    _, answer = await _in_order(service, user, change(service, UUID(user.id)), _login(service, user))
    assert problem(answer) == _REFUSED
    assert await _live_sessions(service, user) == set()


@changes
async def test_a_change_that_comes_after_a_login_ends_the_session_it_opened(service: Service, change: Change) -> None:
    user = await service.register()
    answer, _ = await _in_order(service, user, _login(service, user), change(service, UUID(user.id)))
    assert answer.status_code == 200, answer.text
    await _assert_dead(service, signed_in(answer))
    assert await _live_sessions(service, user) == set()


async def test_a_rehash_that_comes_after_a_password_change_does_not_restore_the_old_password(service: Service) -> None:
    user = await _imported(service)
    _, answer = await _in_order(service, user, _set_password(service, UUID(user.id)), _login(service, user))
    assert problem(answer) == _REFUSED
    assert await _live_sessions(service, user) == set()
    await _assert_password(service, user, _NEW_PASSWORD)


async def test_a_password_change_that_comes_after_a_rehash_of_the_same_password_succeeds(service: Service) -> None:
    user = await _imported(service)
    changing = service.http.post(
        "/user/password",
        json={"current_password": PASSWORD, "new_password": _NEW_PASSWORD},
        headers=user.bearer,
    )
    answer, changed = await _in_order(service, user, _login(service, user), changing)
    assert (answer.status_code, changed.status_code) == (200, 204), changed.text
    await _assert_dead(service, signed_in(answer))
    assert await _live_sessions(service, user) == {_session_of(user)}
    await _assert_password(service, user, _NEW_PASSWORD)


async def test_two_first_logins_of_an_imported_user_at_once_both_succeed(service: Service) -> None:
    user = await _imported(service)
    answers = await _in_order(service, user, _login(service, user), _login(service, user))
    assert [answer.status_code for answer in answers] == [200, 200]
    sessions = {_session_of(signed_in(answer)) for answer in answers}
    assert await _live_sessions(service, user) == {_session_of(user), *sessions}
    [row] = await service.sql("SELECT * FROM users")
    assert row["password_hash"].startswith("$argon2id$")
    assert row["last_login_at"] > row["created_at"]
    await _assert_password(service, user, PASSWORD)


# In every order: the change begins a little later in each round.


async def test_no_session_of_a_disabled_user_survives_its_race(service: Service) -> None:
    user = await service.register()
    statuses = set()
    async for delay in _delays(service, user):
        await service.app.parts.users.enable(UUID(user.id), by=OPERATOR)
        answers = await _race(delay, _disable(service, UUID(user.id)), _login(service, user), _login(service, user))
        statuses |= await _assert_refused_or_dead(service, answers)
        assert await _live_sessions(service, user) == set()
    assert statuses == {200, 401}


async def test_no_session_under_an_old_password_survives_its_race(service: Service) -> None:
    user = await service.register()
    password, statuses = PASSWORD, set()
    async for delay in _delays(service, user):
        old, password = password, f"{PASSWORD} {delay}"
        changing = service.http.post(
            "/user/password", json={"current_password": old, "new_password": password}, headers=user.bearer
        )
        answers = await _race(delay, changing, _login(service, user, old))
        statuses |= await _assert_refused_or_dead(service, answers)
        assert await _live_sessions(service, user) == {_session_of(user)}
        await _assert_password(service, user, password)
    assert statuses == {200, 401}


async def test_no_rehash_restores_an_old_password_in_any_race(service: Service) -> None:
    user = await _imported(service)
    statuses = set()
    async for delay in _delays(service, user):
        await _import_hash(service, user)
        changing = _set_password(service, UUID(user.id))
        answers = await _race(delay, changing, _login(service, user))
        statuses |= await _assert_refused_or_dead(service, answers)
        assert await _live_sessions(service, user) == set()
        await _assert_password(service, user, _NEW_PASSWORD)
    assert statuses == {200, 401}


async def test_logins_and_refreshes_of_a_user_who_is_deleted_are_answered_or_refused(service: Service) -> None:
    statuses = set()
    async for delay in _delays(service, await service.register(), rounds=_ROUNDS // 2):
        user = await service.register()
        deleting = _delete(service, UUID(user.id))
        refreshing = (service.refresh(user.refresh_token) for _ in range(2))
        answers = await _race(delay, deleting, _login(service, user), _login(service, user), *refreshing)
        statuses |= {answer.status_code for answer in answers}
        for answer in answers:
            if answer.status_code == 200:
                await _assert_dead(service, signed_in(answer))
            else:
                assert problem(answer) in (_REFUSED, (401, "refresh_token_revoked"))
        assert await service.sql("SELECT 1 FROM sessions WHERE user_id = $1", user.id) == []
    assert statuses == {200, 401}


async def test_nothing_that_was_minted_works_after_a_logout_was_answered(service: Service) -> None:
    user = await service.register()
    statuses = set()
    half = _ROUNDS // 2
    for number, delay in enumerate([-inf, *(0.0005 * step for step in range(1 - half, half - 1)), inf]):
        session = await service.login(user)
        if number % 2:
            leaving = service.logout(session.refresh_token)
        else:
            leaving = service.http.post("/user/logout", headers=session.bearer)
        refreshing = (service.refresh(session.refresh_token) for _ in range(4))
        answers = await _race(delay, leaving, *refreshing)
        for answer in answers:
            if answer.status_code == 200:
                await _assert_dead(service, signed_in(answer))
            else:
                assert problem(answer) == (401, "refresh_token_revoked")
        await _assert_dead(service, session)
        statuses |= {answer.status_code for answer in answers}
    assert statuses == {200, 401}


# Registrations.

_SPELLINGS = ("strasse", "STRASSE", "Straße", "ｓｔｒａｓｓｅ", "ＳＴＲＡẞＥ", "ſtraſſe", "sTRASSE", "straſse")


async def test_64_registrations_of_one_email_at_once_make_one_account(service: Service) -> None:
    emails = [f"{spelling}@{domain}" for spelling in _SPELLINGS for domain in ("example.com", "Ｅxample.COM")]
    bodies = [{"username": f"user{n}", "email": emails[n % len(emails)]} for n in range(64)]
    await _assert_one_is_registered(service, bodies, "email_taken")


async def test_64_registrations_of_one_user_name_at_once_make_one_account(service: Service) -> None:
    bodies = [{"username": _SPELLINGS[n % len(_SPELLINGS)], "email": f"user{n}@example.com"} for n in range(64)]
    await _assert_one_is_registered(service, bodies, "username_taken")


async def _assert_one_is_registered(service: Service, bodies: list[dict[str, str]], code: str) -> None:
    answers = await asyncio.gather(
        *(service.http.post("/user/register", json={**body, "password": PASSWORD}) for body in bodies)
    )
    created = [answer for answer in answers if answer.status_code == 201]
    assert len(created) == 1
    assert {problem(answer) for answer in answers if answer not in created} == {(409, code)}
    assert [str(row["id"]) for row in await service.sql("SELECT id FROM users")] == [created[0].json()["user"]["id"]]
    assert len(await service.sql("SELECT 1 FROM sessions")) == 1


# What the tests above are made of.


async def _login(service: Service, user: SignedIn, password: str = PASSWORD) -> httpx2.Response:
    return await service.http.post("/user/login", json={"email": user.email, "password": password})


async def _imported(service: Service) -> SignedIn:
    """A user whose password is stored as another system hashed it, so that a login hashes it anew."""
    user = await service.register()
    await _import_hash(service, user)
    return user


async def _import_hash(service: Service, user: SignedIn) -> None:
    salt, rounds = b"of another place", 10
    digest = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), salt, rounds)
    salt_text, digest_text = (b64encode(part, altchars=b"./").decode().rstrip("=") for part in (salt, digest))
    stored = f"$pbkdf2-sha256${rounds}${salt_text}${digest_text}"
    await service.sql("UPDATE users SET password_hash = $2 WHERE id = $1", user.id, stored)


async def _in_order(service: Service, user: SignedIn, first: Awaitable[Any], second: Awaitable[Any]) -> tuple[Any, Any]:
    """The results of both, the second of which comes to the user's row behind the first."""
    async with service.app.parts.database.transaction() as transaction:
        await transaction.rows("SELECT 1 FROM users WHERE id = $1 FOR UPDATE", user.id)
        before = asyncio.ensure_future(first)
        await _until_waiting(service, 1)
        after = asyncio.ensure_future(second)
        await _until_waiting(service, 2)
    return await before, await after


async def _until_waiting(service: Service, count: int) -> None:
    deadline = time.monotonic() + 2.5
    while True:
        [row] = await service.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        if row["count"] == count:
            return
        assert time.monotonic() < deadline, f"{row['count']} are waiting for the row instead of {count}"
        await asyncio.sleep(0.005)


async def _delays(service: Service, user: SignedIn, *, rounds: int = _ROUNDS) -> AsyncIterator[float]:
    """Seconds by which the change begins after the logins; infinite: one after the other is over."""
    began = time.perf_counter()
    await asyncio.gather(_login(service, user), _login(service, user))
    longest = 1.2 * (time.perf_counter() - began)
    yield -inf
    for number in range(1, rounds - 1):
        await service.forget_attempts()  # most rounds end in refusals, more than an account may have in a minute
        yield longest * (2 * number / rounds - 1)
    yield inf


async def _race(delay: float, change: Awaitable[Any], *others: Awaitable[httpx2.Response]) -> list[httpx2.Response]:
    """The answers to the others, once all is over. The change succeeds."""

    async def answered() -> list[httpx2.Response]:
        return await asyncio.gather(*others)

    if delay == inf:
        answers, changed = await answered(), await change
    elif delay == -inf:
        changed, answers = await change, await answered()
    else:
        changed, answers = await asyncio.gather(_after(delay, change), _after(-delay, answered()))
    assert changed is None or changed.status_code == 204, changed.text
    return answers


async def _after(seconds: float, work: Awaitable[_T]) -> _T:
    await asyncio.sleep(max(seconds, 0))
    return await work


async def _assert_refused_or_dead(service: Service, logins: list[httpx2.Response]) -> set[int]:
    for answer in logins:
        if answer.status_code == 200:
            await _assert_dead(service, signed_in(answer))
        else:
            assert problem(answer) == _REFUSED
    return {answer.status_code for answer in logins}


async def _assert_dead(service: Service, session: SignedIn) -> None:
    assert problem(await service.refresh(session.refresh_token)) == (401, "refresh_token_revoked")
    assert problem(await service.me(session.access_token)) == (401, "invalid_token")


async def _assert_password(service: Service, user: SignedIn, password: str) -> None:
    """`password` is the user's, and so no other is. What is stored is asked: a login might hash it anew."""
    [row] = await service.sql("SELECT password_hash FROM users WHERE id = $1", user.id)
    assert row["password_hash"].startswith("$argon2id$")
    assert (await service.app.parts.passwords.check(password, row["password_hash"])).right


def _session_of(session: SignedIn) -> str:
    sid: str = claims_of(session.refresh_token)["sid"]
    return sid


async def _live_sessions(service: Service, user: SignedIn) -> set[str]:
    rows = await service.sql("SELECT id FROM sessions WHERE user_id = $1 AND revoked_at IS NULL", user.id)
    return {str(row["id"]) for row in rows}
