"""The life cycle of the signing keys: carrying out what `schedule.py` decides, one transaction for each decision.

Every change is made under one lock, on the keys as they are then, by the time that is read after it. Revoking a key
is told to the verifiers too, so it begins in `revocation/key_revocation.py`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from auth_service import audit
from auth_service.audit import Actor
from auth_service.errors import NotFound
from auth_service.jobs import Job
from auth_service.keys import schedule
from auth_service.keys.schedule import Changes, KeyLife, Terms
from auth_service.keys.signing_key import new_private_key
from auth_service.keys.store import SigningKeyStore, StoredKeys
from auth_service.stores.database import Database, Statements

_LOCK = 0x61757468_6B657973  # "authkeys"
_INTERVAL = timedelta(seconds=10)
"""How often somebody looks whether anything is due: several times within `schedule.AHEAD`."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Switch:
    """Which key is to sign, and from when. `hastened`: it would have been later otherwise."""

    kid: str
    signs_from: datetime
    hastened: bool


class KeyLifeCycle:
    """Makes, rotates, retires and removes keys. Every method raises Unavailable when PostgreSQL is away; those that
    change something raise WrongEncryptionKey, with nothing changed, where a stored key cannot be decrypted here."""

    def __init__(self, database: Database, store: SigningKeyStore, *, terms: Terms, key_size: int) -> None:
        self._database = database
        self._store = store
        self._terms = terms
        self._key_size = key_size
        self._spares: list[RSAPrivateKey] = []
        """Keys that were made and are not stored yet. Making one takes long, and a transaction must not."""
        self.job = Job("keys", _INTERVAL, self._step, prepare=self._prepare)

    async def list(self) -> tuple[datetime, tuple[KeyLife, ...]]:
        """The time, and every key that is not forgotten yet, oldest first: also those that cannot be decrypted here."""
        stored = await self._store.load()
        return stored.now, stored.lives

    async def ensure(self) -> StoredKeys:
        """Every key, once what is due has been done: after the very first start there are a signing one and a standby.

        Any number of processes at once make one of each.
        """
        stored = await self._store.load()
        stored.require_readable()
        if not schedule.plan(stored.lives, stored.now, self._terms):
            return stored
        await self.change(self._do_what_is_due)
        return await self._store.load()

    async def rotate(self, *, by: Actor) -> Switch:
        """Have the standby sign as soon as it may. Asked again meanwhile, it changes nothing."""

        async def hasten(transaction: Statements, stored: StoredKeys) -> Switch:
            await self._do_what_is_due(transaction, stored)
            stored = await self._store.load(transaction)
            heir, changes = schedule.switch(stored.lives, stored.now, self._terms)
            if changes:
                await self._write(transaction, changes, stored.now, by=by)
                await audit.record(
                    transaction,
                    "key.rotated",
                    by=by,
                    now=stored.now,
                    target=("key", heir.kid),
                    signs_from=heir.signs_from.isoformat(),
                )
                await self._do_what_is_due(transaction, await self._store.load(transaction))
            return Switch(heir.kid, heir.signs_from, bool(changes))

        return await self.change(hasten)

    async def revoke_within(self, transaction: Statements, stored: StoredKeys, kid: str, *, by: Actor) -> bool:
        """Take `kid` out of use inside a `change`, with its successor and a new standby; False if it was before.

        Raises NotFound.
        """
        if kid not in {life.kid for life in stored.lives}:
            raise NotFound("there is no key of this kid")
        changes = schedule.revoke(stored.lives, kid, stored.now, self._terms)
        if not changes:
            return False
        await self._write(transaction, changes, stored.now, by=by)
        await audit.record(transaction, "key.revoked", by=by, now=stored.now, target=("key", kid))
        await self._do_what_is_due(transaction, await self._store.load(transaction))
        return True

    async def change(self, work: Callable[[Statements, StoredKeys], Awaitable[_T]]) -> _T:
        """Run `work` on the keys as they are, in a transaction that nobody else changes keys in; again, from the
        beginning, if it needs more new keys than are at hand."""
        wanted = 0
        while True:
            try:
                async with self._database.transaction() as transaction:
                    return await work(transaction, await self._locked(transaction))
            except _SparesNeeded as exc:
                wanted += exc.missing  # besides those that were taken for what is now rolled back
                await self._make_spares(wanted)

    async def _prepare(self) -> None:
        stored = await self._store.load()
        stored.require_readable()
        await self._make_spares(len(schedule.plan(stored.lives, stored.now, self._terms).added))

    async def _step(self, transaction: Statements, _now: datetime) -> bool:
        try:
            await self._do_what_is_due(transaction, await self._locked(transaction))
        except _SparesNeeded:
            return True  # more has become due since they were made
        return False

    async def _locked(self, transaction: Statements) -> StoredKeys:
        await transaction.rows("SELECT pg_advisory_xact_lock($1)", _LOCK)
        stored = await self._store.load(transaction)
        stored.require_readable()
        return stored

    async def _do_what_is_due(self, transaction: Statements, stored: StoredKeys) -> None:
        changes = schedule.plan(stored.lives, stored.now, self._terms)
        await self._write(transaction, changes, stored.now, by=audit.SERVICE)

    async def _write(self, transaction: Statements, changes: Changes, now: datetime, *, by: Actor) -> None:
        if len(self._spares) < len(changes.added):
            raise _SparesNeeded(len(changes.added) - len(self._spares))
        for period in changes.added:
            life = self._terms.refresh_token_life
            spare = self._spares.pop()
            kid = await self._store.add(transaction, spare, period, life=life, now=now)
            await audit.record(
                transaction,
                "key.added",
                by=by,
                now=now,
                target=("key", kid),
                signs_from=period.signs_from.isoformat(),
            )
        for key in changes.changed:
            await self._store.write(transaction, key)
            if not key.has_private_half and key.revoked_at is None:
                await audit.record(transaction, "key.retired", by=by, now=now, target=("key", key.kid))
        if changes.removed:
            await self._store.remove(transaction, changes.removed)
            for kid in changes.removed:
                await audit.record(transaction, "key.removed", by=by, now=now, target=("key", kid))

    async def _make_spares(self, count: int) -> None:
        while len(self._spares) < count:
            self._spares.append(await asyncio.to_thread(new_private_key, self._key_size))


class _SparesNeeded(Exception):
    def __init__(self, missing: int) -> None:
        super().__init__()
        self.missing = missing
