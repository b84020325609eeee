"""The schedule of the signing keys: when each is published, signs and goes, and what of it must change now.

Deciding alone: nothing here reads a clock, a row or a key. What carries a decision out is `life_cycle.py`'s.

    created ── standby ── signs_from ── signing ── signs_until ── retired ── removed_at
    |<------------- in the JWKS, verifies -------------->|<- JWKS ->|
                                                         |<- our own ring ->|
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from auth_service.settings import ACCESS_TOKEN_TTL_CEILING
from auth_service.verifier.claims import MAX_LEEWAY

JWKS_MAX_AGE = timedelta(seconds=300)
"""For how long a verifier may keep the JWKS without asking again."""

PUBLISHED_BEFORE = 2 * JWKS_MAX_AGE
"""How long a key has been in the JWKS before it may sign: every verifier has fetched it by then."""

LEEWAY = timedelta(seconds=MAX_LEEWAY)
"""For how long past its `exp` a verifier may still accept a token."""

PUBLISHED_AFTER = ACCESS_TOKEN_TTL_CEILING + LEEWAY + JWKS_MAX_AGE
"""How long a key stays in the JWKS once it has ceased to sign. By the ceiling: the setting may change meanwhile."""

UNDER_WAY = timedelta(seconds=60)
"""How long a key keeps its private half after its end, for requests that were dated before it."""

AHEAD = timedelta(seconds=60)
"""How long before a standby begins to sign the next one is made, so that there is always one."""

SWITCH_NOTICE = timedelta(seconds=10)
"""How far ahead a change of the key that signs is written down: several times what a process takes to hear of it."""

State = Literal["standby", "signing", "retired", "revoked"]
STATES: tuple[State, ...] = ("standby", "signing", "retired", "revoked")

_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class KeyLife:
    """The times of one key. `signs_until` is None only for one that was made before keys had an end."""

    kid: str
    created_at: datetime
    signs_from: datetime
    signs_until: datetime | None
    refresh_token_life: timedelta
    """The longest life that a refresh token of this key may have been given, under any setting since it was made."""
    revoked_at: datetime | None = None
    has_private_half: bool = True

    @property
    def ends(self) -> datetime:
        return self.signs_until or _NEVER

    def state(self, now: datetime) -> State:
        if self.revoked_at is not None:
            return "revoked"
        if now < self.signs_from:
            return "standby"
        return "signing" if now < self.ends else "retired"

    def is_published(self, now: datetime) -> bool:
        """Whether the JWKS has it: until the last access token that it may have signed is past."""
        return self.revoked_at is None and now - PUBLISHED_AFTER < self.ends

    @property
    def removed_at(self) -> datetime | None:
        """When nothing that it signed can be good any more. A revoked key is known for as long, so that its tokens are
        refused for what they are, and longer than the journal and any cache of the JWKS remember it."""
        end = self.revoked_at or self.signs_until
        return None if end is None else end + max(PUBLISHED_AFTER, self.refresh_token_life + LEEWAY)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the settings ask for: how long a key signs, and how long a refresh token may live."""

    rotation_interval: timedelta
    refresh_token_life: timedelta


@dataclass(frozen=True, slots=True)
class Period:
    """When a key that is yet to be made is to sign."""

    signs_from: datetime
    signs_until: datetime


@dataclass(frozen=True, slots=True)
class Changes:
    """What must be written: keys to make, keys as they are to be, kids to forget."""

    added: tuple[Period, ...] = ()
    changed: tuple[KeyLife, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


def plan(keys: Iterable[KeyLife], now: datetime, terms: Terms) -> Changes:
    """What is due at `now`: one key signs, one more is in the JWKS to follow it, those that have ended give up their
    private half, and those whose last token is past are forgotten."""
    keys = tuple(keys)
    line, added = _with_a_signer(_line(keys), now, terms)
    if added:
        added.append(Period(added[-1].signs_until, added[-1].signs_until + terms.rotation_interval))
    elif line[-1].signs_from <= now + AHEAD:
        # A key of an older schema has no end yet; one that could not be followed in time goes on until it can be.
        last = line[-1]
        starts = max(last.signs_until or last.signs_from + terms.rotation_interval, now + PUBLISHED_BEFORE + AHEAD)
        line[-1] = replace(last, signs_until=starts)
        added.append(Period(starts, starts + terms.rotation_interval))
    line = [_as_it_ought_to_be(key, now, terms) for key in line]
    removed = tuple(
        key.kid for key in keys if not key.has_private_half and key.removed_at is not None and key.removed_at <= now
    )
    return Changes(tuple(added), _changed(keys, line), removed)


def switch(keys: Iterable[KeyLife], now: datetime, terms: Terms) -> tuple[KeyLife, Changes]:
    """The standby, to sign as soon as it may: when it has been published for long enough and all have heard of it.

    Changes nothing where it will sign by then anyway. To be asked when nothing is left to `plan`.
    """
    keys = tuple(keys)
    line = _line(keys)
    [position, *_] = [index for index, key in enumerate(line) if key.signs_from > now]
    heir = line[position]
    moment = max(now + SWITCH_NOTICE, heir.created_at + PUBLISHED_BEFORE)
    if heir.signs_from <= moment:
        return heir, Changes()
    before = replace(line[position - 1], signs_until=moment)
    following = _following(moment, line[position:], terms)
    return following[0], Changes(changed=_changed(keys, [before, *following]))


def revoke(keys: Iterable[KeyLife], kid: str, now: datetime, terms: Terms) -> Changes:
    """`kid` signs and verifies nothing any more. If it was signing, the next in line signs at once, published for
    long or not: a key that somebody else may hold is worse than a `kid` that a verifier must ask for.

    `plan` then makes up for what is missing.
    """
    keys = tuple(keys)
    [gone] = [key for key in keys if key.kid == kid]
    if gone.revoked_at is not None:
        return Changes()
    rest = [key for key in _line(keys) if key.kid != kid]
    later = [key for key in rest if key.signs_from > now]
    added: tuple[Period, ...] = ()
    if gone.state(now) == "signing":
        if later:
            later = _following(now, later, terms)
        else:
            added = (Period(now, now + terms.rotation_interval),)
    elif gone.state(now) == "standby" and later:
        # The key before it goes on until the one after it may follow.
        before = [key for key in rest if key.signs_from <= now][-1]
        starts = max(before.ends, later[0].created_at + PUBLISHED_BEFORE)
        later = [replace(before, signs_until=starts), *_following(starts, later, terms)]
    until = min(gone.ends, max(now, gone.signs_from))
    revoked = replace(gone, revoked_at=now, has_private_half=False, signs_until=until)
    return Changes(added, _changed(keys, [revoked, *later]))


def _line(keys: Iterable[KeyLife]) -> list[KeyLife]:
    """Those that sign, will sign, or did so a moment ago, in their order."""
    able = (key for key in keys if key.has_private_half and key.revoked_at is None)
    return sorted(able, key=lambda key: (key.signs_from, key.kid))


def _with_a_signer(line: list[KeyLife], now: datetime, terms: Terms) -> tuple[list[KeyLife], list[Period]]:
    """The line with one in it that signs now; where there is none to do it, one to be made."""
    if not line:
        return [], [Period(now, now + terms.rotation_interval)]
    before = [key for key in line if key.signs_from <= now]
    after = line[len(before) :]
    if not before:
        after = _following(now, after, terms)
    elif before[-1].ends <= now:
        # Nobody was there to rotate. Its public half is known as well as any: it goes on until another may follow.
        starts = after[0].signs_from if after else now + PUBLISHED_BEFORE + AHEAD
        before[-1] = replace(before[-1], signs_until=starts)
    return before + after, []


def _following(start: datetime, keys: Sequence[KeyLife], terms: Terms) -> list[KeyLife]:
    """`keys` one after the other from `start`, for an interval each."""
    following = []
    for key in keys:
        following.append(replace(key, signs_from=start, signs_until=start + terms.rotation_interval))
        start += terms.rotation_interval
    return following


def _as_it_ought_to_be(key: KeyLife, now: datetime, terms: Terms) -> KeyLife:
    if key.ends <= now:
        return replace(key, has_private_half=now < key.ends + UNDER_WAY)
    # Never lowered: what it signed under a longer setting lives on.
    return replace(key, refresh_token_life=max(key.refresh_token_life, terms.refresh_token_life))


def _changed(before: Iterable[KeyLife], after: Iterable[KeyLife]) -> tuple[KeyLife, ...]:
    known = {key.kid: key for key in before}
    return tuple(key for key in after if known[key.kid] != key)
