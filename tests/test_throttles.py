"""Throttles: who is held back, from what and until when; and who never is."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client import REGISTRY

from auth_service.accounts import names
from auth_service.accounts.address_buckets import AddressBuckets, bucket_key
from auth_service.accounts.throttle import LOGIN, PASSWORD_CHECK, Limits, Throttle
from auth_service.audit import OPERATOR
from auth_service.errors import InvalidCredentials, TooManyAttempts, Unavailable
from auth_service.settings import Settings
from auth_service.stores.places import LIFE
from auth_service.stores.rate_limits import PREFIX
from tests.support.admin import events
from tests.support.load import Connection
from tests.support.processes import served
from tests.support.service import PASSWORD, WINDOW, Service, SignedIn, Start, problem, running_service
from tests.support.stores import Stores, stopped

_HELD_BACK = (429, "too_many_attempts")
_REFUSED = (401, "invalid_credentials")
_HERE, _ELSEWHERE = "203.0.113.7", "198.51.100.9"


class _Caller:
    """Somebody at an address."""

    def __init__(self, service: Service, address: str) -> None:
        self.http = service.client(address=address)

    async def login(self, password: str = PASSWORD, **name: str) -> httpx2.Response:
        return await self.http.post("/user/login", json={**name, "password": password})

    async def fail(self, count: int, **name: str) -> list[tuple[int, str]]:
        """What so many wrong passwords are answered, one after the other."""
        return [problem(await self.login("a wrong password", **name)) for _ in range(count)]

    async def register(self, username: str, email: str = "") -> httpx2.Response:
        body = {"username": username, "email": email or f"{username}@example.com", "password": PASSWORD}
        return await self.http.post("/user/register", json=body)


async def _pass_time(service: Service, *, seconds: int) -> None:
    """What Redis would have forgotten by then is gone; the rest has so much less to live."""
    async for key in service.redis.scan_iter(f"{PREFIX}:*"):
        left = await service.redis.pttl(key) - seconds * 1000
        await (service.redis.pexpire(key, left) if left > 0 else service.redis.delete(key))


def _retry_after(answer: httpx2.Response) -> int:
    assert problem(answer) == _HELD_BACK
    return int(answer.headers["retry-after"])


def _count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


# Login.


async def test_five_failures_hold_an_address_back_from_an_account_and_from_no_other(service: Service) -> None:
    ada, other = await service.register(), await service.register()
    caller = _Caller(service, _HERE)
    assert await caller.fail(6, email=ada.email) == [*[_REFUSED] * 5, _HELD_BACK]
    assert problem(await caller.login(email=ada.email)) == _HELD_BACK, "the right password too"
    assert (await caller.login(email=other.email)).status_code == 200
    assert (await _Caller(service, _ELSEWHERE).login(email=ada.email)).status_code == 200


async def test_who_waits_as_long_as_they_are_told_is_let_in(service: Service) -> None:
    ada = await service.register()
    caller = _Caller(service, _HERE)
    await caller.fail(5, email=ada.email)
    wait = _retry_after(await caller.login(email=ada.email))
    assert 55 <= wait <= 61
    await _pass_time(service, seconds=wait - 5)
    assert problem(await caller.login(email=ada.email)) == _HELD_BACK
    await _pass_time(service, seconds=5)
    assert (await caller.login(email=ada.email)).status_code == 200


async def test_they_are_told_to_wait_for_the_longest_window_that_is_full(service: Service) -> None:
    caller = _Caller(service, _HERE)
    for _ in range(4):
        await _pass_time(service, seconds=61)
        assert await caller.fail(5, email="nobody@example.com") == [_REFUSED] * 5
    assert 3000 < _retry_after(await caller.login(email="nobody@example.com")) <= 3601


async def test_being_held_back_says_nothing_of_whether_there_is_such_an_account(service: Service) -> None:
    ada, disabled = await service.register(), await service.register()
    users = service.app.parts.users
    await users.disable((await users.locate(disabled.username)).id, by=OPERATOR)
    seen = set()
    for email, password in ((ada.email, "wrong"), (disabled.email, PASSWORD), ("nobody@example.com", PASSWORD)):
        answers = [await _Caller(service, _HERE).login(password, email=email) for _ in range(7)]
        for answer in answers:
            del answer.headers["x-request-id"]
            if "retry-after" in answer.headers:
                assert _retry_after(answer) in range(50, 62)
                answer.headers["retry-after"] = "a minute"
        seen.add(tuple((answer.status_code, answer.text, frozenset(answer.headers.items())) for answer in answers))
    assert len(seen) == 1


async def test_64_guesses_at_once_on_two_processes_are_no_more_than_one_by_one(service: Service, start: Start) -> None:
    ada = await service.register()
    services = [service, await start()]
    answers = await asyncio.gather(
        *(_Caller(services[number % 2], _HERE).login("wrong", email=ada.email) for number in range(64))
    )
    assert sorted(problem(answer) for answer in answers) == [*[_REFUSED] * 5, *[_HELD_BACK] * 59]
    assert len(await events(service, "user.login_failed")) == 5, "no more were looked at"


async def test_guesses_at_one_account_from_many_addresses_are_limited_together(service: Service) -> None:
    ada = await service.register()
    strangers = [_Caller(service, f"198.51.100.{number}") for number in range(12)]
    answers = [problem(await stranger.login("wrong", email=ada.email)) for stranger in strangers]
    assert answers == [*[_REFUSED] * 10, *[_HELD_BACK] * 2]


@pytest.mark.parametrize(
    ("home", "same_subscriber"),
    [(_HERE, _HERE), ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff")],
    ids=["IPv4", "IPv6"],
)
@pytest.mark.parametrize("bucket", ["account", "everybody"])
@pytest.mark.parametrize("logged_out", [False, True])
async def test_nobody_is_locked_out_from_elsewhere_where_they_are_signed_in(
    service: Service, home: str, same_subscriber: str, bucket: str, logged_out: bool
) -> None:
    ada, other = await service.register(), await service.register()
    signed_in = await _Caller(service, home).login(email=ada.email)
    assert signed_in.status_code == 200
    if logged_out:  # by themselves: it shows as well that they come from there
        assert (await service.logout(signed_in.json()["refresh_token"])).status_code == 204
    assert (await _Caller(service, _ELSEWHERE).login(email=other.email)).status_code == 200
    await _fill(service, bucket, _account_key(bucket, ada))
    at_home = _Caller(service, same_subscriber)
    assert problem(await _Caller(service, _ELSEWHERE).login(email=ada.email)) == _HELD_BACK
    assert (await at_home.login(email=ada.email)).status_code == 200
    await _fill(service, bucket, _account_key(bucket, ada))
    assert await at_home.fail(6, email=ada.email) == [*[_REFUSED] * 5, _HELD_BACK], "its own failures still count"


@pytest.mark.parametrize("bucket", ["account", "everybody"])
@pytest.mark.parametrize("ended", ["reused", "expired", "none", "another's"])
async def test_where_they_are_not_signed_in_now_is_elsewhere(service: Service, ended: str, bucket: str) -> None:
    ada, other = await service.register(), await service.register()
    home = _Caller(service, _HERE)
    if ended in ("reused", "expired"):
        answer = await home.login(email=ada.email)
        if ended == "reused":
            token = answer.json()["refresh_token"]
            await service.refreshed(token)
            service.advance(seconds=WINDOW + 1)
            assert problem(await service.refresh(token)) == (401, "refresh_token_reused")
        else:
            service.advance(seconds=2_592_001)
    elif ended == "another's":
        assert (await home.login(email=other.email)).status_code == 200
    await _fill(service, bucket, _account_key(bucket, ada))
    assert problem(await home.login(email=ada.email)) == _HELD_BACK


async def _fill(service: Service, bucket: str, key: str, *, left: int = 0) -> None:
    """As if there had been as many failures in this minute as there may be, less `left`."""
    [most] = [window.amount for window in getattr(LOGIN, bucket) if window.get_expiry() == 60]
    await service.redis.set(f"{PREFIX}:login/{bucket}/{key}/{most}/60", most - left, ex=60)


def _account_key(bucket: str, user: SignedIn) -> str:
    return bucket_key(user.email) if bucket == "account" else "all"


async def test_guesses_at_many_accounts_from_one_address_are_limited_together(service: Service) -> None:
    caller = _Caller(service, _HERE)
    answers = [problem(await caller.login("wrong", username=f"nobody{number}")) for number in range(31)]
    assert answers == [*[_REFUSED] * 30, _HELD_BACK]
    assert await _Caller(service, _ELSEWHERE).fail(1, username="nobody") == [_REFUSED]


async def test_all_addresses_of_an_ipv6_subscriber_are_one(service: Service) -> None:
    for number in range(1, 6):
        assert await _Caller(service, f"2001:db8:1:2::{number:x}").fail(1, username="nobody") == [_REFUSED]
    assert await _Caller(service, "2001:db8:1:2:ffff:ffff:ffff:ffff").fail(1, username="nobody") == [_HELD_BACK]
    assert await _Caller(service, "2001:db8:1:3::1").fail(1, username="nobody") == [_REFUSED]


async def test_whoever_signs_in_is_forgiven_their_failures(service: Service) -> None:
    ada = await service.register()
    caller = _Caller(service, _HERE)
    for _ in range(7):
        assert await caller.fail(4, email=ada.email) == [_REFUSED] * 4
        assert (await caller.login(email=ada.email)).status_code == 200


async def test_signing_in_is_no_failure_however_often(service: Service) -> None:
    ada = await service.register()
    caller = _Caller(service, _HERE)
    await _fill(service, "address", bucket_key(_HERE), left=1)
    for _ in range(6):
        assert (await caller.login(email=ada.email)).status_code == 200


async def test_an_own_account_does_not_pay_for_guesses_at_others(service: Service) -> None:
    mallory = await service.register()
    caller = _Caller(service, _HERE)
    await _fill(service, "address", bucket_key(_HERE), left=2)
    for number in range(2):
        assert (await caller.login(email=mallory.email)).status_code == 200
        assert await caller.fail(1, username=f"nobody{number}") == [_REFUSED]
    assert await caller.fail(1, username="nobody") == [_HELD_BACK]
    assert problem(await caller.login(email=mallory.email)) == _HELD_BACK


async def test_the_two_names_of_an_account_do_not_tell_of_each_other(service: Service) -> None:
    ada = await service.register()
    await _Caller(service, _HERE).fail(5, email=ada.email)
    await _Caller(service, _ELSEWHERE).fail(5, email=ada.email)
    third = _Caller(service, "192.0.2.3")
    assert await third.fail(1, email=ada.email) == [_HELD_BACK]
    assert await third.fail(1, email=ada.email.upper()) == [_HELD_BACK], "however it is spelt"
    assert await third.fail(1, username=ada.username) == [_REFUSED]
    per_day = {window.amount for window in LOGIN.account if window.GRANULARITY.name == "day"}
    assert 2 * max(per_day) <= 100, "NIST SP 800-63B-4 §3.2.2, for both together"


async def test_a_made_up_x_forwarded_for_changes_no_bucket(service: Service) -> None:
    caller = _Caller(service, _HERE)
    answers = []
    for number in range(6):
        caller.http.headers["X-Forwarded-For"] = f"192.0.2.{number}"
        answers += await caller.fail(1, username="nobody")
    assert answers == [*[_REFUSED] * 5, _HELD_BACK]


async def test_behind_a_trusted_proxy_each_client_has_its_own_bucket(start: Start) -> None:
    service = await start(trusted_proxies="203.0.113.0/24")
    proxy = _Caller(service, _HERE)
    for number in range(6):
        proxy.http.headers["X-Forwarded-For"] = f"192.0.2.250, 192.0.2.{number}"
        assert await proxy.fail(1, username="nobody") == [_REFUSED]
    proxy.http.headers["X-Forwarded-For"] = "192.0.2.5"
    assert await proxy.fail(5, username="nobody") == [*[_REFUSED] * 4, _HELD_BACK]


@pytest.mark.parametrize(("networks", "held_back"), [("", True), ("203.0.113.0/24, 198.51.100.0/24", False)])
async def test_an_unthrottled_network_has_no_bucket_for_an_address_but_one_for_each_account(
    start: Start, networks: str, held_back: bool
) -> None:
    service = await start(unthrottled_networks=networks)
    await _fill(service, "address", bucket_key(_HERE))
    assert await _Caller(service, _HERE).fail(1, username="nobody") == [_HELD_BACK if held_back else _REFUSED]
    assert (await _Caller(service, _ELSEWHERE).fail(6, username="nobody"))[-1] == _HELD_BACK


async def test_a_password_that_finds_the_queue_full_is_503_and_no_failure(service: Service) -> None:
    ada = await service.register()
    passwords = service.app.parts.passwords
    places = 64 * len(os.sched_getaffinity(0))
    slow = "$pbkdf2-sha256$3000000$c2FsdHNhbHQ$" + "A" * 43  # a second and more to check
    checks = [asyncio.create_task(passwords.check("wrong", slow)) for _ in range(places)]
    caller = _Caller(service, _HERE)
    answers = [
        await caller.login("wrong", email=email) for email in (ada.email, "nobody@example.com") for _ in range(6)
    ]
    assert {problem(answer) for answer in answers} == {(503, "unavailable")}
    assert not any(check.done() for check in checks)
    for check in checks:
        check.cancel()
    await asyncio.wait(checks)
    assert await caller.fail(6, email=ada.email) == [*[_REFUSED] * 5, _HELD_BACK]


async def test_what_is_held_back_is_counted_and_leaves_no_row(service: Service) -> None:
    caller = _Caller(service, _HERE)
    await caller.fail(5, username="nobody")
    rows = len(await events(service))
    throttled = _count("auth_throttled_total", operation="login", bucket="pair")
    logins = _count("auth_logins_total", outcome="throttled")
    assert await caller.fail(20, username="nobody") == [_HELD_BACK] * 20
    assert len(await events(service)) == rows
    assert _count("auth_throttled_total", operation="login", bucket="pair") == throttled + 20
    assert _count("auth_logins_total", outcome="throttled") == logins + 20


async def test_redis_holds_no_name_and_no_address_and_forgets_everything(service: Service) -> None:
    await _Caller(service, _HERE).fail(6, username="somebody")
    await _Caller(service, _HERE).register("somebody", "somebody@example.com")
    await _Caller(service, _HERE).register("somebody", "other@example.com")
    keys = [key async for key in service.redis.scan_iter("*")]
    assert len(keys) >= 9
    for key in keys:
        assert key.startswith(b"auth:"), key
        assert 0 < await service.redis.ttl(key) <= 86_400, key
        members = await service.redis.smembers(key) if await service.redis.type(key) == b"set" else set()
        for text in (key, *members):
            assert not any(word in text for word in (b"somebody", b"example.com", _HERE.encode()))


# At once.


async def test_64_right_logins_of_one_account_at_once_are_all_let_in(service: Service, start: Start) -> None:
    ada = await service.register()
    services = [service, await start()]
    answers = await asyncio.gather(
        *(_Caller(services[number % 2], _HERE).login(email=ada.email) for number in range(64))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert await _under_way(service) == {}


async def test_100_users_who_log_in_at_once_behind_one_address_are_all_let_in(service: Service) -> None:
    users = await _add_users(service, 100)
    answers = await asyncio.gather(*(_Caller(service, _HERE).login(username=name) for name in users))
    assert {answer.status_code for answer in answers} == {200}


async def test_guesses_at_one_account_hold_back_no_other_that_is_logged_in_to_with_them(service: Service) -> None:
    ada, *users = await _add_users(service, 9)
    guesses = [_Caller(service, _HERE).login("wrong", username=ada) for _ in range(32)]
    right = [_Caller(service, _HERE).login(username=name) for name in users for _ in range(4)]
    answers = await asyncio.gather(*(login for pair in zip(guesses, right, strict=True) for login in pair))
    assert sorted(problem(answer) for answer in answers[::2]) == [*[_REFUSED] * 5, *[_HELD_BACK] * 27]
    assert {answer.status_code for answer in answers[1::2]} == {200}


async def test_after_three_failures_two_more_may_fail_however_many_come_at_once(service: Service) -> None:
    ada = await service.register()
    await _fill(service, "pair", bucket_key(_HERE, ada.email), left=2)
    answers = await asyncio.gather(*(_Caller(service, _HERE).login("wrong", email=ada.email) for _ in range(32)))
    assert sorted(problem(answer) for answer in answers) == [*[_REFUSED] * 2, *[_HELD_BACK] * 30]


async def test_a_process_that_is_killed_holds_nobody_back_for_long(service: Service, tmp_path: Path) -> None:
    ada = await service.register()
    login = {"email": ada.email, "password": PASSWORD}
    # One that lives on keeps the bucket alive, and not the places of the dead.
    async with _attempts(service, 1, "127.0.0.1", ada.email, life=timedelta(minutes=5)):
        with served(service.settings, tmp_path) as [process]:
            connections = [await Connection.open(process.port) for _ in range(4)]
            async with service.app.parts.database.transaction() as transaction:
                await transaction.rows("SELECT 1 FROM users FOR UPDATE")  # so that none is over before it is killed
                logins = [asyncio.create_task(connection.post("/user/login", login)) for connection in connections]
                await _until(lambda: _are_under_way(service, 5))
                process.send(signal.SIGKILL)
                await asyncio.wait(logins)
        for connection in connections:
            with suppress(ConnectionError):
                await connection.close()
        assert all(isinstance(login.exception(), EOFError | ConnectionError) for login in logins)
        held_back = await service.http.post("/user/login", json=login)
        assert _retry_after(held_back) == 1, "has waited, and for nothing: nobody has failed"
        await _pass_time_under_way(service, seconds=16)
        assert (await service.http.post("/user/login", json=login)).status_code == 200
    assert await _under_way(service) == {}


async def test_a_place_is_renewed_for_as_long_as_its_attempt_lasts(service: Service) -> None:
    async with _attempts(service, 1, _HERE, "ada", life=timedelta(seconds=0.6)):
        redis: Any = service.redis
        [key, *_] = await _under_way(service)
        [(_, first)] = await redis.zrange(key, 0, -1, withscores=True)

        async def is_renewed() -> bool:
            [(_, lapses)] = await redis.zrange(key, 0, -1, withscores=True)
            return bool(lapses > first + 600)

        await _until(is_renewed)


async def test_where_they_are_signed_in_nobody_waits_for_strangers(service: Service) -> None:
    ada = await service.register()
    assert (await _Caller(service, _HERE).login(email=ada.email)).status_code == 200
    async with _attempts(service, 10, _ELSEWHERE, ada.email, operation=replace(LOGIN, pair=(), address=())):
        assert (await _Caller(service, _HERE).login(email=ada.email)).status_code == 200


async def test_a_failure_that_cannot_be_counted_is_not_told(
    fragile_settings: Callable[..., Settings], fragile: Stores
) -> None:
    async with running_service(fragile_settings()) as service, AsyncExitStack() as outage:
        throttle = service.app.parts.throttle

        async def fail(limits: Limits) -> None:
            async with throttle.attempt(limits, address=_HERE, account="ada"):
                if limits is LOGIN:
                    await outage.enter_async_context(stopped(fragile.redis, signal.SIGKILL))
                raise InvalidCredentials

        with pytest.raises(Unavailable):
            await fail(LOGIN)
        for _ in range(10):
            with pytest.raises(InvalidCredentials):
                await fail(PASSWORD_CHECK)
        with pytest.raises(TooManyAttempts):
            await fail(PASSWORD_CHECK)


@asynccontextmanager
async def _attempts(
    service: Service, count: int, address: str, account: str, *, operation: Limits = LOGIN, life: timedelta = LIFE
) -> AsyncIterator[None]:
    """So many of them are under way while the body runs."""
    throttle = Throttle(service.redis, AddressBuckets(()), life=life)
    async with AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(throttle.attempt(operation, address=address, account=account))
        yield


async def _under_way(service: Service) -> dict[bytes, int]:
    """How many are, in each bucket in which any is."""
    keys = [key async for key in service.redis.scan_iter(f"{PREFIX}:*/under_way")]
    return {key: await service.redis.zcard(key) for key in keys}


async def _are_under_way(service: Service, count: int) -> bool:
    return count in (await _under_way(service)).values()


async def _pass_time_under_way(service: Service, *, seconds: int) -> None:
    redis: Any = service.redis
    for key in await _under_way(service):
        for who in await redis.zrange(key, 0, -1):
            await redis.zincrby(key, -1000 * seconds, who)


async def _until(is_so: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + 5
    while not await is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def _add_users(service: Service, count: int) -> list[str]:
    """The names of new accounts, all with the same hash, which takes less time to make than one each."""
    password_hash = await service.app.parts.passwords.hash(PASSWORD)
    users = [f"somebody{number}" for number in range(count)]
    await service.app.parts.users.import_batch(
        [(names.username(name), names.email(f"{name}@example.com"), password_hash, frozenset()) for name in users],
        by=OPERATOR,
    )
    return users


# Who is signed in.


async def test_whoever_is_signed_in_is_not_held_back_by_failed_logins(service: Service) -> None:
    ada = await service.register()
    caller = _Caller(service, _HERE)
    await _fill(service, "address", bucket_key(_HERE))
    assert problem(await caller.login(email=ada.email)) == _HELD_BACK
    http, bearer = caller.http, ada.bearer
    assert (await http.post("/user/refresh-token", json={"refresh_token": ada.refresh_token})).status_code == 200
    assert (await http.get("/user/me", headers=bearer)).status_code == 200
    assert (await http.get("/user/sessions", headers=bearer)).status_code == 200
    renamed = await http.patch("/user/me", json={"username": "grace"}, headers=bearer)
    assert renamed.status_code == 200
    assert (await _change_password(caller, ada, PASSWORD)).status_code == 204
    assert (await http.post("/user/logout", headers=bearer)).status_code == 204


async def _change_password(caller: _Caller, user: SignedIn, current: str) -> httpx2.Response:
    body = {"current_password": current, "new_password": "another long password"}
    return await caller.http.post("/user/password", json=body, headers=user.bearer)


async def _change_email(caller: _Caller, user: SignedIn, current: str) -> httpx2.Response:
    body = {"current_password": current, "email": "new@example.com"}
    return await caller.http.patch("/user/me", json=body, headers=user.bearer)


async def test_the_current_password_cannot_be_guessed_with_a_stolen_access_token(service: Service) -> None:
    ada, other = await service.register(), await service.register()
    thieves = [_Caller(service, _HERE), _Caller(service, _ELSEWHERE)]
    answers = [problem(await ask(thief, ada, "wrong")) for thief in thieves for ask in _ASKING for _ in range(3)]
    assert answers == [*[_REFUSED] * 10, *[_HELD_BACK] * 2]
    for ask in _ASKING:
        assert problem(await ask(thieves[0], ada, PASSWORD)) == _HELD_BACK
    assert (await thieves[0].login(email=ada.email)).status_code == 200, "a login has buckets of its own"
    assert (await _change_password(thieves[0], other, PASSWORD)).status_code == 204


_ASKING = (_change_password, _change_email)


async def test_judging_a_new_password_is_an_attempt_too(service: Service) -> None:
    """It is slow work, and holds the GIL."""
    caller, user = _Caller(service, _HERE), await service.register()
    for _ in range(10):
        assert problem(await _change_password(caller, user, "not the right one")) == _REFUSED
    weak = {"current_password": PASSWORD, "new_password": "aaaaaaaaaaaa"}
    assert problem(await caller.http.post("/user/password", json=weak, headers=user.bearer)) == _HELD_BACK


async def test_passwords_cannot_be_changed_without_end_even_with_the_right_one(service: Service) -> None:
    """Weak or not: each is judged or hashed, and is work."""
    caller, user = _Caller(service, _HERE), await service.register()
    answers = []
    for number in range(22):
        body = {"current_password": PASSWORD, "new_password": PASSWORD if number % 2 else "aaaaaaaaaaaa"}
        answers.append((await caller.http.post("/user/password", json=body, headers=user.bearer)).status_code)
    assert answers == [422, 204] * 10 + [429] * 2
    body = {"current_password": PASSWORD, "new_password": "another long password"}
    other = await service.register()
    assert (await caller.http.post("/user/password", json=body, headers=other.bearer)).status_code == 204


async def test_a_subscriber_of_very_many_ipv6_networks_cannot_hold_everybody_back(service: Service) -> None:
    """A /48 may be rented by anybody: 65,536 networks of the size that counts as one address."""
    ada, at_home = await service.register(), await service.register()
    home = "2001:db8:7:1::1"
    assert (await _Caller(service, home).login(email=at_home.email)).status_code == 200
    for network in range(12):
        caller = _Caller(service, f"2001:db8:7:{network + 0x100:x}::1")
        await asyncio.gather(*(caller.fail(1, username=f"nobody{network}{number}") for number in range(10)))
    assert await _Caller(service, "2001:db8:7:ffff::1").fail(1, username="nobody") == [_HELD_BACK]
    assert (await _Caller(service, "2001:db8:8::1").login(email=ada.email)).status_code == 200
    assert (await _Caller(service, home).login(email=at_home.email)).status_code == 200, "who is known there"


async def test_current_passwords_of_many_accounts_cannot_be_guessed_from_one_address(service: Service) -> None:
    caller = _Caller(service, _HERE)
    users = [await service.register() for _ in range(4)]
    answers = [problem(await _change_password(caller, user, "wrong")) for user in users for _ in range(8)]
    assert answers == [*[_REFUSED] * 30, *[_HELD_BACK] * 2]


async def test_a_right_current_password_is_forgiven_the_wrong_ones_before(service: Service) -> None:
    ada = await service.register()
    caller = _Caller(service, _HERE)
    for _ in range(2):
        assert [problem(await _change_email(caller, ada, "wrong")) for _ in range(9)] == [_REFUSED] * 9
        assert (await _change_email(caller, ada, PASSWORD)).status_code == 200


async def test_while_redis_is_away_current_passwords_are_counted_in_memory(
    fragile_settings: Callable[..., Settings], fragile: Stores
) -> None:
    async with running_service(fragile_settings()) as service:
        ada = await service.register()
        caller = _Caller(service, _HERE)
        before = _count("auth_throttle_fallbacks_total", operation="password_check")
        async with stopped(fragile.redis, signal.SIGKILL):
            answers = [problem(await _change_password(caller, ada, "wrong")) for _ in range(11)]
            assert answers == [*[_REFUSED] * 10, _HELD_BACK]
            assert _count("auth_throttle_fallbacks_total", operation="password_check") == before + 11
            assert problem(await caller.login(email=ada.email)) == (503, "unavailable")
            renamed = await caller.http.patch("/user/me", json={"username": "grace"}, headers=ada.bearer)
            assert renamed.status_code == 200
        assert (await _change_password(caller, ada, PASSWORD)).status_code == 204


# Names.


async def test_an_address_learns_of_twenty_taken_names_and_then_nothing(service: Service) -> None:
    users = [await service.register() for _ in range(21)]
    caller = _Caller(service, _HERE)
    for number, user in enumerate(users[:20]):
        names = (user.username, "") if number % 2 else (f"new{number}", user.email)
        assert problem(await caller.register(*names))[0] == 409
    for taken_or_free in (users[20].username, "brand-new"):
        assert 3000 < _retry_after(await caller.register(taken_or_free)) <= 3600
    assert problem(await caller.register("new0", users[0].email)) == (409, "email_taken"), "which is known already"
    assert problem(await _Caller(service, _ELSEWHERE).register(users[20].username)) == (409, "email_taken")
    await _pass_time(service, seconds=3600)
    assert (await caller.register("brand-new")).status_code == 201


async def test_64_questions_at_once_are_no_more_than_one_by_one(service: Service) -> None:
    ada = await service.register()
    caller = _Caller(service, _HERE)
    answers = await asyncio.gather(*(caller.register(f"new{number}", ada.email) for number in range(64)))
    assert sorted(problem(answer) for answer in answers) == [*[(409, "email_taken")] * 20, *[_HELD_BACK] * 44]


async def test_names_that_are_free_are_no_questions(service: Service) -> None:
    caller = _Caller(service, _HERE)
    for number in range(22):
        assert (await caller.register(f"new{number}")).status_code == 201


async def test_an_address_may_try_a_hundred_registrations_in_a_minute(service: Service) -> None:
    ada = await service.register()
    caller = _Caller(service, _HERE)
    answers = [problem(await caller.register("new", ada.email)) for _ in range(101)]
    assert answers == [*[(409, "email_taken")] * 100, _HELD_BACK]


async def test_renaming_tells_no_more_taken_names_than_registration(service: Service) -> None:
    ada, bob, other = [await service.register() for _ in range(3)]
    callers = [_Caller(service, _HERE), _Caller(service, _ELSEWHERE)]

    async def rename(number: int, username: str, user: SignedIn = ada) -> httpx2.Response:
        return await callers[number % 2].http.patch("/user/me", json={"username": username}, headers=user.bearer)

    for number in range(20):
        assert (await rename(number, f"new{number}")).status_code == 200, "which forgives nothing"
        assert problem(await rename(number, other.username)) == (409, "username_taken")
    for number in range(2):
        assert problem(await rename(number, other.username)) == _HELD_BACK
        assert problem(await rename(number, "brand-new")) == _HELD_BACK
    for _ in range(10):
        assert problem(await rename(0, other.username, bob)) == (409, "username_taken")
    assert problem(await rename(0, other.username, bob)) == _HELD_BACK, "for any account of theirs"
    assert (await rename(1, "brand-new", bob)).status_code == 200


async def test_the_document_declares_that_these_may_be_held_back(service: Service) -> None:
    paths = (await service.http.get("/openapi.json")).json()["paths"]
    asked = [("/user/register", "post"), ("/user/login", "post"), ("/user/password", "post"), ("/user/me", "patch")]
    assert all("429" in paths[path][method]["responses"] for path, method in asked)
