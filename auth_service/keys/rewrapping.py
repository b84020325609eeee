"""Re-wrapping: every stored private key encrypted anew under the first encryption key, so that an old one can go."""

from collections.abc import Callable
from dataclasses import dataclass

from auth_service import audit
from auth_service.audit import Actor
from auth_service.keys.encryption import KeyCipher
from auth_service.stores.database import Database, read_time


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """How many keys were written anew, and how many had no need of it."""

    rewrapped: int
    unchanged: int


class KeyRewrapping:
    """Writes one row a transaction, so it may end anywhere and be run again. Raises Unavailable, and
    WrongEncryptionKey with nothing written."""

    def __init__(self, database: Database, cipher: KeyCipher) -> None:
        self._database = database
        self._cipher = cipher

    async def run(self, *, by: Actor, progress: Callable[[int, int], None] = lambda _done, _all: None) -> Rewrapped:
        """Rewrap what is not under the first key yet. `progress` is told how many of how many are done.

        The processes that serve must have that key first, too: what they store meanwhile is under theirs.
        """
        rows = await self._database.rows(
            "SELECT kid, private_key FROM signing_keys WHERE private_key IS NOT NULL ORDER BY created_at, signs_from"
        )
        # Every one before the first is written: where one cannot be decrypted, somebody has to find its key.
        anew = [(row["kid"], row["private_key"], self._cipher.rewrap(row["private_key"])) for row in rows]
        written = 0
        for done, (kid, old, new) in enumerate(anew, start=1):
            if new is not None:
                written += await self._write(kid, old, new, by)
            progress(done, len(anew))
        return Rewrapped(written, len(anew) - written)

    async def _write(self, kid: str, old: bytes, new: bytes, by: Actor) -> bool:
        async with self._database.transaction() as transaction:
            # Only what is still as it was read: a key that has retired meanwhile must not get its private half back.
            row = await transaction.row(
                "UPDATE signing_keys SET private_key = $3 WHERE kid = $1 AND private_key = $2 RETURNING kid",
                kid,
                old,
                new,
            )
            if row is not None:
                now = await read_time(transaction, self._database.clock)
                await audit.record(transaction, "key.rewrapped", by=by, now=now, target=("key", kid))
        return row is not None
