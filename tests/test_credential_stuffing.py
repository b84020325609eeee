"""Credential stuffing: leaked passwords tried on many accounts from many addresses, while others are signed in."""

import asyncio
import os
import time
from collections import Counter

from auth_service.accounts import names
from auth_service.audit import OPERATOR
from tests.support.admin import events
from tests.support.service import PASSWORD, Service, SignedIn

_SCALE = 25 if os.environ.get("TEST_CAMPAIGN") else 1
_ATTEMPTS, _ACCOUNTS, _ADDRESSES = 400 * _SCALE, 40 * _SCALE, 4 * _SCALE
_AT_ONCE = 16
_PER_MINUTE, _PER_HOUR = 30, 100
"""Failures that an address may have."""


async def test_most_of_a_stuffing_run_never_reaches_the_hash_and_whoever_is_signed_in_notices_nothing(
    service: Service,
) -> None:
    residents = [await service.register() for _ in range(2)]
    await _add_accounts(service)
    attempts = [
        (f"victim{number % _ACCOUNTS}", f"198.18.{number % _ADDRESSES}.1", f"leaked password {number}")
        for number in range(_ATTEMPTS)
    ]
    attempts.reverse()
    statuses: Counter[int] = Counter()
    began = time.monotonic()

    async def stuff() -> None:
        while attempts:
            username, address, password = attempts.pop()
            async with service.client(address=address) as http:
                answer = await http.post("/user/login", json={"username": username, "password": password})
            statuses[answer.status_code] += 1

    over = asyncio.gather(*(stuff() for _ in range(_AT_ONCE)))
    rounds = 0
    while not over.done() or rounds == 0:
        # At one of the addresses that it comes from, too.
        await asyncio.gather(*(_live(service, user, "198.18.0.1") for user in residents))
        rounds += 1
        await asyncio.wait({over}, timeout=0.5)
    await over
    minutes = (time.monotonic() - began) / 60

    reached = len(await events(service, "user.login_failed"))
    print(  # noqa: T201
        f"\n{_ATTEMPTS} attempts on {_ACCOUNTS} accounts from {_ADDRESSES} addresses in {minutes * 60:.0f} s: "
        f"{reached} reached the hash; both users who are signed in refreshed and changed things {rounds} times"
    )
    assert statuses == {401: reached, 429: _ATTEMPTS - reached}
    assert reached <= _ADDRESSES * min(_PER_HOUR, _PER_MINUTE * (int(minutes) + 1))


async def _live(service: Service, user: SignedIn, address: str) -> None:
    """What somebody does who is signed in: nothing of it is held back."""
    async with service.client(address=address, headers=user.bearer) as http:
        answer = await http.post("/user/refresh-token", json={"refresh_token": user.refresh_token})
        assert answer.status_code == 200, answer.text
        user.refresh_token = answer.json()["refresh_token"]
        for name in (f"{user.username}x", user.username):
            assert (await http.patch("/user/me", json={"username": name})).status_code == 200
        body = {"current_password": PASSWORD, "new_password": PASSWORD}
        answer = await http.post("/user/password", json=body)
        assert answer.status_code == 204, answer.text


async def _add_accounts(service: Service) -> None:
    password_hash = await service.app.parts.passwords.hash(PASSWORD)
    victims = [f"victim{number}" for number in range(_ACCOUNTS)]
    await service.app.parts.users.import_batch(
        [(names.username(name), names.email(f"{name}@example.com"), password_hash, frozenset()) for name in victims],
        by=OPERATOR,
    )
