"""Revocations as a verifier holds them: how one is named on the wire, and the set that every request is held against.

Where they come from is `feed.py`'s concern.
"""

import hashlib
import threading
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from typing import Final, Literal, get_args

from auth_service.verifier.claims import AccessTokenClaims

Kind = Literal["s", "j", "c", "k"]
"""What is revoked: s a session (`sid`), j one access token (`jti`), c a client (`client_id`), k a key (`kid`)."""

KINDS: Final = frozenset(get_args(Kind))

Name = bytes
"""What an entry is held under here: its kind, then the 16 bytes of its id."""

Entry = tuple[Kind, str, float]
"""Kind, id (see `revocation_id`), and when the entry may be forgotten, in seconds since the epoch."""

_SWEEP_INTERVAL = 60.0  # seconds
# Seconds for which an entry is kept past its time: a clock here that runs fast and is then set back by less than this
# brings no revoked token to life again.
_MARGIN = 3600.0


def revocation_id(claim: str) -> str:
    """The name of a claim's value in the feed: the first 16 bytes of its SHA-256, base64url.

    The feed is public; from this name nobody learns a session's or a user's id.
    """
    return urlsafe_b64encode(_digest(claim)).rstrip(b"=").decode("ascii")


def entry_name(kind: Kind, identifier: str) -> Name:
    """The name under which the entry of that kind and id is held."""
    return kind.encode("ascii") + urlsafe_b64decode(identifier + "==")


class RevocationSet:
    """Everything revoked that this process has heard of. Only grows, until entries expire: nothing is ever un-revoked.

    A set sent anew is therefore joined to what is held, which stays in force meanwhile, and an issuer that has
    forgotten something (a database restored from a backup) takes nothing away here. May be added to from any thread.
    """

    def __init__(self) -> None:
        self._expiries: dict[Name, float] = {}
        self.holds_none_of: Callable[[Collection[Name]], bool] = self._expiries.keys().isdisjoint
        """True if none of some names (see `watched_names`) is revoked. Every request asks: no frame of ours between."""
        self._watchers: dict[Name, set[Callable[[], None]]] = {}
        self._forget_at = 0.0
        self._changing = threading.Lock()

    def __len__(self) -> int:
        return len(self._expiries)

    def add(self, entries: Iterable[Entry], *, now: float) -> None:
        """Add `entries`, tell those who watch them, and forget what has expired as of `now`."""
        woken: list[Callable[[], None]] = []
        with self._changing:  # what one adds must not be what another forgets
            for kind, identifier, expires_at in entries:
                name = entry_name(kind, identifier)
                # A revoked key stays revoked for the life of the process: no clock may bring it back.
                expiry = float("inf") if kind == "k" else expires_at
                if expiry > self._expiries.get(name, 0.0):
                    self._expiries[name] = expiry
                    woken += self._watchers.get(name, ())
            if now >= self._forget_at:
                self._forget_at = now + _SWEEP_INTERVAL
                for name in [name for name, expiry in self._expiries.items() if expiry + _MARGIN < now]:
                    del self._expiries[name]
        for tell in woken:
            tell()

    def watch(self, names: Collection[Name], tell: Callable[[], None]) -> Callable[[], None]:
        """Call `tell`, maybe from another thread, when one of `names` is revoked. Answers how to stop watching."""
        for name in names:
            self._watchers.setdefault(name, set()).add(tell)

        def stop() -> None:
            for name in names:
                watchers = self._watchers.get(name, set())
                watchers.discard(tell)
                if not watchers:
                    self._watchers.pop(name, None)

        return stop


def watched_names(claims: AccessTokenClaims, kid: str) -> tuple[Name, ...]:
    """Under which names a token may be revoked: its session, itself, its client and its key."""
    own = (b"j" + _digest(claims.token_id), _client_name(claims.client_id), _key_name(kid))
    return own if claims.session_id is None else (b"s" + _digest(claims.session_id), *own)


@lru_cache(maxsize=1024)
def _client_name(client_id: str) -> Name:
    return b"c" + _digest(client_id)


@lru_cache(maxsize=64)
def _key_name(kid: str) -> Name:
    return b"k" + _digest(kid)


def _digest(claim: str) -> bytes:
    return hashlib.sha256(claim.encode("utf-8")).digest()[:16]
