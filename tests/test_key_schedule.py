"""The schedule of the signing keys: what is due when, as a table; and what holds whatever happens in whatever order."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from auth_service.keys import schedule
from auth_service.keys.schedule import (
    AHEAD,
    JWKS_MAX_AGE,
    LEEWAY,
    PUBLISHED_AFTER,
    SWITCH_NOTICE,
    UNDER_WAY,
    Changes,
    KeyLife,
    Terms,
)
from auth_service.settings import ACCESS_TOKEN_TTL_CEILING

_START = datetime(2030, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)
_PUBLISHED = 2 * JWKS_MAX_AGE
_TERMS = Terms(30 * _DAY, 7 * _DAY)
_CAMPAIGN = bool(os.environ.get("TEST_CAMPAIGN"))


def _day(number: float) -> datetime:
    return _START + number * _DAY


def _key(kid: str, start: float, end: float | None, *, made: float | None = None, private: bool = True) -> KeyLife:
    """A key that signs from day `start` to day `end`."""
    return KeyLife(
        kid=kid,
        created_at=_day(start - 30 if made is None else made),
        signs_from=_day(start),
        signs_until=None if end is None else _day(end),
        refresh_token_life=7 * _DAY,
        has_private_half=private,
    )


_A, _B, _C = _key("a", 0, 30), _key("b", 30, 60), _key("c", 60, 90)


def _said(changes: Changes) -> list[str]:
    """What is to be done, in a word for each key."""
    said = [f"add {_days(period.signs_from)}..{_days(period.signs_until)}" for period in changes.added]
    said += [
        f"revoke {key.kid}"
        if key.revoked_at
        else f"retire {key.kid}"
        if not key.has_private_half
        else f"{key.kid} {_days(key.signs_from)}..{_days(key.ends)}"
        for key in changes.changed
    ]
    return said + [f"remove {kid}" for kid in changes.removed]


def _days(moment: datetime) -> str:
    return f"{(moment - _START) / _DAY:g}"


@pytest.mark.parametrize(
    ("keys", "day", "due"),
    [
        pytest.param([], 0, ["add 0..30", "add 30..60"], id="the very first start makes a signing key and a standby"),
        pytest.param([_A, _B], 15, [], id="one signs and one stands by: nothing is due"),
        pytest.param([_A, _B], 29.999, [], id="more than a minute before the change: nothing is due"),
        pytest.param([_A, _B], 29.9995, ["add 60..90"], id="just before the change the next standby is made"),
        pytest.param([_A, _B], 30, ["add 60..90"], id="and at the change, if it was missed"),
        pytest.param([_A, _B, _C], 30, [], id="requests under way may still be signed with the key that has ended"),
        pytest.param([_A, _B, _C], 30.001, ["retire a"], id="then it gives up its private half"),
        pytest.param(
            [replace(_A, has_private_half=False), _B, _C], 36.9, [], id="its refresh tokens are good for days"
        ),
        pytest.param(
            [replace(_A, has_private_half=False), _B, _C], 37.001, ["remove a"], id="and then it is forgotten"
        ),
        pytest.param([_A, _B, _C], 38, ["retire a"], id="never forgotten before it has given up its private half"),
        pytest.param(
            [_A, _B], 65, ["add 65.0076..95.0076", "retire a", "b 30..65.0076"], id="nobody was there: the last goes on"
        ),
        pytest.param([_key("a", 0, None)], 10, ["add 30..60", "a 0..30"], id="an older schema's key is given an end"),
        pytest.param(
            [_key("a", 0, None)], 99, ["add 99.0076..129.008", "a 0..99.0076"], id="not before it can be followed"
        ),
        pytest.param(
            [_C],
            50,
            ["add 80..110", "c 50..80"],
            id="a lone standby takes the place of a row that somebody has deleted",
        ),
    ],
)
def test_what_is_due(keys: Sequence[KeyLife], day: float, due: list[str]) -> None:
    assert _said(schedule.plan(keys, _day(day), _TERMS)) == due


@pytest.mark.parametrize(
    ("keys", "day", "done"),
    [
        pytest.param([_A, _B], 15, ["a 0..15.0001", "b 15.0001..45.0001"], id="a moment ahead, so that all have heard"),
        pytest.param(
            [_A, replace(_B, created_at=_day(15))],
            15,
            ["a 0..15.0069", "b 15.0069..45.0069"],
            id="not before it was published for two max-ages",
        ),
        pytest.param([_A, _B], 29.99995, [], id="it would sign within that moment anyway"),
        pytest.param(
            [_A, _B, _C], 29.9995, ["a 0..29.9996", "b 29.9996..59.9996", "c 59.9996..89.9996"], id="the rest move up"
        ),
    ],
)
def test_a_switch_on_demand(keys: Sequence[KeyLife], day: float, done: list[str]) -> None:
    heir, changes = schedule.switch(keys, _day(day), _TERMS)
    assert heir.kid == "b"
    assert _said(changes) == done


@pytest.mark.parametrize(
    ("keys", "kid", "done"),
    [
        pytest.param([_A, _B], "a", ["revoke a", "b 15..45"], id="the standby signs at once"),
        pytest.param([_A], "a", ["add 15..45", "revoke a"], id="or a new key where there is none"),
        pytest.param([_A, _B], "b", ["revoke b"], id="a standby signs never"),
        pytest.param(
            [_A, _B, replace(_C, created_at=_day(14))], "b", ["revoke b", "c 30..60"], id="and the one after it is next"
        ),
        pytest.param(
            [_key("z", -30, 0, private=False), _A, _B], "z", ["revoke z"], id="a retired key changes no other"
        ),
    ],
)
def test_a_revocation(keys: Sequence[KeyLife], kid: str, done: list[str]) -> None:
    changes = schedule.revoke(keys, kid, _day(15), _TERMS)
    assert _said(changes) == done
    assert not any(key.has_private_half for key in changes.changed if key.kid == kid)
    after = {key.kid: key for key in keys} | {key.kid: key for key in changes.changed}
    assert not schedule.revoke(after.values(), kid, _day(16), _TERMS), "a second time changes nothing"


def test_a_key_stays_published_for_what_any_setting_could_have_had_it_sign() -> None:
    last = ACCESS_TOKEN_TTL_CEILING + LEEWAY
    assert _A.is_published(_day(30) + last)
    assert not _A.is_published(_day(30) + PUBLISHED_AFTER)
    assert not replace(_A, revoked_at=_day(15)).is_published(_day(15))


def test_a_shorter_life_of_refresh_tokens_counts_for_new_keys_and_a_longer_one_for_all_that_sign() -> None:
    longer, shorter = replace(_TERMS, refresh_token_life=9 * _DAY), replace(_TERMS, refresh_token_life=_DAY)
    assert [key.refresh_token_life for key in schedule.plan([_A, _B], _day(1), longer).changed] == [9 * _DAY] * 2
    assert not schedule.plan([_A, _B], _day(1), shorter)


@dataclass
class _Signed:
    """What a key has been used for."""

    kid: str
    access_expires_at: datetime
    refresh_expires_at: datetime


@dataclass
class _Table:
    """The stored keys, changed as `life_cycle.py` changes them."""

    now: datetime = _START
    keys: dict[str, KeyLife] = field(default_factory=dict)
    made: int = 0

    def apply(self, changes: Changes, terms: Terms) -> None:
        for period in changes.added:
            self.made += 1
            kid = f"key{self.made}"
            self.keys[kid] = KeyLife(
                kid, self.now, period.signs_from, period.signs_until, refresh_token_life=terms.refresh_token_life
            )
        for key in changes.changed:
            before = self.keys[key.kid]
            assert before.has_private_half or not key.has_private_half, "a private half that is gone does not come back"
            assert before.revoked_at is None, "a revoked key changes no more"
            self.keys[key.kid] = key
        for kid in changes.removed:
            del self.keys[kid]

    def in_state(self, *states: str) -> list[KeyLife]:
        return [key for key in self.keys.values() if key.state(self.now) in states]


class KeySchedule(RuleBasedStateMachine):
    """Time passes, operators rotate and revoke, settings change; and the job does its work now and then."""

    @initialize(terms=st.builds(Terms, st.sampled_from([3600 * _SECOND, 30 * _DAY]), st.just(7 * _DAY)))
    def first_start(self, terms: Terms) -> None:
        self.terms = terms
        self.table = _Table()
        self.signed: list[_Signed] = []
        self.in_emergency = {"key1"}
        """Keys that had to sign at once: the first of all, and those that came in the place of a revoked one."""
        self._tick()

    @rule(gap=st.sampled_from([1, 9, 59, 299, 601, 3599, 7201]))
    def time_passes(self, gap: int) -> None:
        self._pass(gap * _SECOND)

    @rule(before=st.sampled_from([61, 30, 0, -61]))
    def the_end_of_a_key_comes(self, before: int) -> None:
        [signing] = self.table.in_state("signing")
        self._pass(max(signing.ends - self.table.now - before * _SECOND, _SECOND))

    @rule(days=st.sampled_from([7, 40, 400]))
    def nobody_is_there(self, days: int) -> None:
        self.table.now += days * _DAY
        self._tick()

    @rule()
    def an_operator_rotates(self) -> None:
        heir, changes = schedule.switch(self.table.keys.values(), self.table.now, self.terms)
        self.table.apply(changes, self.terms)
        self._tick()
        after = self.table.keys[heir.kid]
        assert after.signs_from == heir.signs_from
        assert not changes or after.signs_from >= self.table.now + SWITCH_NOTICE
        [signing] = self.table.in_state("signing")
        assert signing.ends == after.signs_from, "nothing signs between the two"

    @rule(choose=st.randoms(use_true_random=False), states=st.sampled_from([("signing",), ("standby", "retired")]))
    def an_operator_revokes(self, choose: Random, states: tuple[str, ...]) -> None:
        kids = [key.kid for key in self.table.in_state(*states)]
        if not kids:
            return
        kid = choose.choice(kids)
        was_signing = self.table.keys[kid].state(self.table.now) == "signing"
        self.table.apply(schedule.revoke(self.table.keys.values(), kid, self.table.now, self.terms), self.terms)
        if was_signing:
            self.in_emergency |= {key.kid for key in self.table.in_state("signing")}
        self.signed = [one for one in self.signed if one.kid != kid]
        self._tick()
        assert self.table.keys[kid].state(self.table.now) == "revoked"

    @rule(interval=st.sampled_from([3600, 86_400, 2_592_000]), life=st.sampled_from([60, 604_800, 31_536_000]))
    def the_settings_change(self, interval: int, life: int) -> None:
        self.terms = Terms(interval * _SECOND, life * _SECOND)
        self._tick()

    def _pass(self, gap: timedelta) -> None:
        """Time passes, the job being done all the while; by the steps that count."""
        until = self.table.now + gap
        while self.table.now < until:
            ends = [moment for key in self.table.keys.values() for moment in _turning_points(key)]
            self.table.now = min([moment for moment in ends if moment > self.table.now] + [until])
            self._sign_and_check()
            self._tick()

    def _tick(self) -> None:
        changes = schedule.plan(self.table.keys.values(), self.table.now, self.terms)
        self.table.apply(changes, self.terms)
        after = schedule.plan(self.table.keys.values(), self.table.now, self.terms)
        assert not after.added, "once is enough"
        assert not after.changed, "once is enough"
        self._sign_and_check()

    def _sign_and_check(self) -> None:
        now = self.table.now
        [signing] = self.table.in_state("signing")
        assert signing.has_private_half
        assert signing.kid in self.in_emergency or signing.created_at + _PUBLISHED <= now
        life = signing.refresh_token_life
        self.signed.append(
            _Signed(signing.kid, now + ACCESS_TOKEN_TTL_CEILING, now + min(life, self.terms.refresh_token_life))
        )
        self.signed = [one for one in self.signed if one.refresh_expires_at > now or one.access_expires_at > now]
        for one in self.signed:
            if one.refresh_expires_at > now:
                assert one.kid in self.table.keys, "a refresh token that is good outlives its key"
            if one.access_expires_at + LEEWAY > now:
                assert self.table.keys[one.kid].is_published(now), "an access token that is good outlives its key"

    @invariant()
    def one_signs_and_another_is_published_to_follow_it(self) -> None:
        if not hasattr(self, "table"):
            return
        now = self.table.now
        assert len(self.table.in_state("signing")) == 1
        standbys = self.table.in_state("standby")
        assert 1 <= len(standbys) <= 2
        assert all(key.is_published(now) and key.has_private_half for key in standbys)
        for key in self.table.in_state("retired"):
            assert not key.has_private_half or now < key.ends + UNDER_WAY
        assert not any(key.has_private_half for key in self.table.in_state("revoked"))


def _turning_points(key: KeyLife) -> list[datetime]:
    """When something is due for a key, or just past."""
    ends = key.ends
    return [
        key.signs_from - AHEAD,
        key.signs_from,
        ends,
        ends + UNDER_WAY,
        ends + ACCESS_TOKEN_TTL_CEILING + LEEWAY - _SECOND,
        ends + PUBLISHED_AFTER,
        *([key.removed_at] if key.removed_at else []),
    ]


_CHECK: Callable[..., object] = settings(
    max_examples=1000 if _CAMPAIGN else 25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
KeySchedule.TestCase.settings = _CHECK  # type: ignore[assignment]
TestKeySchedule = KeySchedule.TestCase
