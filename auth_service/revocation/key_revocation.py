"""Revoking a signing key: what it signed is refused everywhere, and another signs in its place."""

import asyncio
from collections.abc import Sequence

import structlog

from auth_service.audit import Actor
from auth_service.errors import Unavailable
from auth_service.keys.life_cycle import KeyLifeCycle
from auth_service.keys.store import StoredKeys
from auth_service.revocation import journal
from auth_service.revocation.announcer import Announcer
from auth_service.stores.database import Statements
from auth_service.verifier.revocations import Entry

_PUSH_TIMEOUT = 1.0  # seconds: a Redis that hangs must not hold up an emergency

_log = structlog.get_logger(__name__)


class KeyRevocation:
    """Revokes keys. Raises NotFound, Unavailable when PostgreSQL is away, and WrongEncryptionKey."""

    def __init__(self, life_cycle: KeyLifeCycle, announcer: Announcer) -> None:
        self._life_cycle = life_cycle
        self._announcer = announcer

    async def revoke(self, kid: str, *, by: Actor) -> bool:
        """Revoke `kid`; False if it had been before, and is told once more.

        It leaves the JWKS, and a journal row has every verifier drop it within two seconds. Its refresh tokens are
        refused as `refresh_token_revoked`; the sessions themselves stay, for whoever has a token of another key.
        """

        async def work(transaction: Statements, stored: StoredKeys) -> tuple[bool, Sequence[Entry]]:
            is_new = await self._life_cycle.revoke_within(transaction, stored, kid, by=by)
            return is_new, await journal.revoke(transaction, "k", [kid], reason="key", now=stored.now)

        is_new, entries = await self._life_cycle.change(work)
        try:
            async with asyncio.timeout(_PUSH_TIMEOUT):
                await self._announcer.announce(entries)
        except (Unavailable, TimeoutError) as exc:
            _log.warning("redis_not_told_of_a_revoked_key", reason=str(exc))
        return is_new
