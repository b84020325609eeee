"""Revoking a signing key: what it signed is refused everywhere, and another signs in its place."""

from collections.abc import Sequence

from auth_service.audit import Actor
from auth_service.keys.life_cycle import KeyLifeCycle
from auth_service.keys.store import StoredKeys
from auth_service.revocation import journal
from auth_service.revocation.announcer import Announcer
from auth_service.stores.database import Statements
from auth_service.verifier.revocations import Entry


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
        await self._announcer.announce_committed(entries)
        return is_new
