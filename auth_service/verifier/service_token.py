"""The service token that a verifier presents to a feed which is not public: fetched, renewed at half its life, dropped.

The issuer looks at it when the feed is opened, and not again: an open feed is never cut because of it.
"""

import asyncio
import logging
import random
from dataclasses import dataclass, field

from auth_service.verifier.clock import Clock
from auth_service.verifier.issuer_client import IssuerClient, IssuerRefuses, IssuerUnreachable

SCOPE = "revocations:read"

_RETRY_BOUNDS = (0.5, 15.0)  # seconds

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """How the issuer knows this service: a client id and its secret (`auth-service clients add`)."""

    client_id: str
    client_secret: str = field(repr=False)


class ServiceTokenSource:
    """One token at a time, of the client credentials grant (RFC 6749 §4.4)."""

    def __init__(self, credentials: ClientCredentials, clock: Clock) -> None:
        self._credentials = credentials
        self._clock = clock
        self._access_token: str | None = None
        self._renew_at = self._expires_at = float("-inf")
        self._refused_until = float("-inf")
        self._failures = 0

    async def access_token(self, issuer: IssuerClient) -> str:
        """A token that is good now: the one held, or, past half its life, a new one if there is one to be had.

        Raises IssuerUnreachable.
        """
        if self._access_token is not None and self._clock.monotonic() < self._renew_at:
            return self._access_token
        try:
            return await self._renewed(issuer)
        except IssuerUnreachable:
            if self._access_token is None or self._clock.monotonic() >= self._expires_at:
                raise
            return self._access_token

    def drop(self) -> None:
        """The issuer does not take it: ask for another next time."""
        self._access_token = None

    async def follow(self, issuer: IssuerClient) -> None:
        """Renew ahead for as long as this runs, so that a feed which breaks finds a token that is good for a while."""
        while True:
            due_in = 0.0 if self._access_token is None else self._renew_at - self._clock.monotonic()
            # Not at the same moment as every other verifier.
            await asyncio.sleep(max(due_in, self._backoff()) * random.uniform(1, 1.1))  # noqa: S311
            if self._access_token is None or self._clock.monotonic() < self._renew_at:
                continue  # the first one is asked for by whoever opens the feed
            try:
                await self._renewed(issuer)
            except IssuerUnreachable as exc:
                _log.warning("the service token could not be renewed: %s", exc)
            except Exception:
                _log.exception("a fault in renewing the service token")  # which must go on all the same

    async def _renewed(self, issuer: IssuerClient) -> str:
        if self._clock.monotonic() < self._refused_until:
            raise IssuerUnreachable("it refused our client credentials a moment ago")
        try:
            endpoint = (await issuer.metadata()).token_endpoint
            if endpoint is None:
                raise IssuerUnreachable("its metadata names no token_endpoint")
            asked_at = self._clock.monotonic()
            credentials = self._credentials
            access_token, life = await issuer.service_token(
                endpoint, credentials.client_id, credentials.client_secret, scope=SCOPE
            )
        except IssuerUnreachable as exc:
            issuer.forget_metadata()
            self._failures += 1
            if isinstance(exc, IssuerRefuses):
                # Asked again at once it would refuse again; whoever wants to open the feed would ask each second.
                self._refused_until = self._clock.monotonic() + self._backoff()
            raise
        self._failures = 0
        self._access_token = access_token
        self._renew_at = asked_at + life / 2
        self._expires_at = asked_at + life
        return access_token

    def _backoff(self) -> float:
        shortest, longest = _RETRY_BOUNDS
        return min(longest, shortest * float(2 ** min(self._failures, 8)))
