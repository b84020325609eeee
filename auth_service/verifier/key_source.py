"""The issuer's keys as this process knows them: fetched together, refreshed ahead, kept through an outage."""

import asyncio
import logging
import random
import re
from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from auth_service.verifier.clock import Clock
from auth_service.verifier.errors import KeysUnavailable, UnknownKey
from auth_service.verifier.issuer_client import Document, IssuerClient, IssuerUnreachable
from auth_service.verifier.jwks import UnusableKeySet, parse_jwks

COOLDOWN = 5.0
"""Seconds after a fetch that was made for an unknown `kid`, and did not bring it, before another is made for one."""

_LIFE_BOUNDS = (60.0, 3600.0)  # seconds; between them the issuer's own max-age counts
_LIFE_UNSAID = 300.0
_RETRY_BOUNDS = (0.25, 15.0)
_PATIENCE = 3.0  # seconds for one fetch, the metadata included
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?([0-9]{1,9})", re.IGNORECASE)
_NOT_KEPT = re.compile(r"(?:^|[,\s])no-(?:store|cache)\b", re.IGNORECASE)

_log = logging.getLogger(__name__)


class KeySource:
    """The keys of one issuer by `kid`. At most one fetch is under way at any time, whoever waits for it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._issuer: IssuerClient | None = None
        self.held: Mapping[str, RSAPublicKey] = {}
        """The keys held now, by `kid`: read by every request."""
        self._etag: str | None = None
        self._fetched_at: float | None = None
        self._refresh_at = float("-inf")
        self._cooldown_ends = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._failures = 0

    def __len__(self) -> int:
        return len(self.held)

    @property
    def age(self) -> float | None:
        """Seconds since the issuer last said which keys it has; None before it ever did."""
        return None if self._fetched_at is None else self._clock.monotonic() - self._fetched_at

    async def key(self, kid: str) -> RSAPublicKey:
        """The key that `kid` names. Fetches for a name that is not held, as `COOLDOWN` allows; waits for no cooldown.

        Raises UnknownKey; KeysUnavailable where no keys are held, or the fetch that might have brought this one failed.
        """
        for _ in range(2):
            key = self.held.get(kid)
            if key is not None:
                return key
            # A fetch that was under way before this name came up may have been answered before the key was published.
            joined = self._fetching is not None
            if not joined and self._clock.monotonic() < self._cooldown_ends:
                break
            if not joined:
                # Before the answer, too: whoever asked may have gone by then.
                self._cooldown_ends = self._clock.monotonic() + COOLDOWN
            await self.refresh()
            if not joined:
                self._end_cooldown(found=kid in self.held)
        key = self.held.get(kid)
        if key is not None:
            return key
        if self._failures or not self.held:
            raise KeysUnavailable("the issuer's keys could not be fetched")
        raise UnknownKey("kid names no key of the issuer")

    async def refresh(self) -> None:
        """Ask the issuer now, or wait for the answer that is under way. On failure, what is held is kept."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())
        # One who waits may be cancelled; the others still want the answer.
        await asyncio.shield(self._fetching)

    async def follow(self, issuer: IssuerClient) -> None:
        """Keep the keys fresh for as long as this runs: refreshed before they are due, and soon after a failure."""
        self._issuer, self._fetching = issuer, None
        try:
            await self.refresh()
            while True:
                due_in = self._refresh_at - self._clock.monotonic()
                if due_in > 0:
                    await asyncio.sleep(due_in)
                else:
                    await self.refresh()
        finally:
            # Unless another event loop has taken over meanwhile.
            if self._issuer is issuer:
                self._issuer = None
                if self._fetching is not None:
                    self._fetching.cancel()
                    await asyncio.wait({self._fetching})

    async def _fetch(self) -> None:
        try:
            if self._issuer is None:
                raise IssuerUnreachable("the verifier is not open")
            async with asyncio.timeout(_PATIENCE):
                await self._ask(self._issuer)
        except asyncio.CancelledError:
            self._failures += 1  # the verifier is closing: whoever waits is told that the keys are not available
        except Exception as exc:
            if not isinstance(exc, IssuerUnreachable | UnusableKeySet | TimeoutError):
                _log.exception("a fault in fetching the issuer's keys")  # which must be tried again all the same
            self._failures += 1
            self._refresh_at = self._clock.monotonic() + self._backoff()
            why = str(exc) or "timed out"
            _log.warning("the issuer's keys could not be fetched: %s; %d are held", why, len(self.held))
        else:
            self._failures = 0
        finally:
            self._fetching = None

    async def _ask(self, issuer: IssuerClient) -> None:
        asked_at = self._clock.monotonic()
        try:
            document = await issuer.document((await issuer.metadata()).jwks_uri, etag=self._etag)
            if document.content is not None:
                self.held = parse_jwks(document.content, known=self.held)
                etag = document.headers.get("etag", "")
                self._etag = etag if etag.isascii() else None  # another could not be sent back
        except (IssuerUnreachable, UnusableKeySet):
            issuer.forget_metadata()
            raise
        self._fetched_at = asked_at
        # Somewhat before they are due, and not at the same moment as every other verifier.
        self._refresh_at = asked_at + _life(document) * random.uniform(0.7, 0.9)  # noqa: S311

    def _end_cooldown(self, *, found: bool) -> None:
        """The fetch for a name has ended: the next may be made at once if it brought the name, sooner if it failed."""
        if found:
            self._cooldown_ends = float("-inf")
        elif self._failures:
            self._cooldown_ends = self._clock.monotonic() + self._backoff()

    def _backoff(self) -> float:
        shortest, longest = _RETRY_BOUNDS
        doublings = min(max(self._failures - 1, 0), 10)
        return min(longest, shortest * float(2**doublings)) * random.uniform(0.5, 1)  # noqa: S311


def _life(document: Document) -> float:
    """Seconds for which the issuer lets its answer be kept (RFC 9111 §5.2.2), within bounds."""
    control = document.headers.get("cache-control", "")
    found = _MAX_AGE.search(control)
    life = float(found[1]) if found else _LIFE_UNSAID
    age = document.headers.get("age", "0")
    if age.isascii() and age.isdecimal():
        life -= int(age[:9])  # a cache on the way has kept it for so long already
    kept = 0.0 if _NOT_KEPT.search(control) else life
    return min(max(kept, _LIFE_BOUNDS[0]), _LIFE_BOUNDS[1])
