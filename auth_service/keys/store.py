"""The signing keys in PostgreSQL, private halves encrypted. What a process holds of them is `key_ring.py`'s."""

import asyncio

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from auth_service.keys.encryption import KeyCipher, WrongEncryptionKey
from auth_service.keys.signing_key import SigningKey, new_private_key, thumbprint
from auth_service.stores.database import Database, Row, read_time

_LOCK = 0x61757468_6B657973  # "authkeys"


class SigningKeyStore:
    """Reads the keys, and makes the first one. Raises Unavailable and WrongEncryptionKey; overwrites nothing."""

    def __init__(self, database: Database, cipher: KeyCipher, *, key_size: int) -> None:
        self._database = database
        self._cipher = cipher
        self._key_size = key_size

    async def load(self) -> tuple[SigningKey, ...]:
        """Every key, oldest first."""
        rows = await self._database.rows("SELECT * FROM signing_keys ORDER BY signs_from, kid")
        return tuple(self._key(row) for row in rows)

    async def load_or_create(self) -> tuple[SigningKey, ...]:
        """Every key; on an empty table the first one is made. Any number of processes at once make one."""
        keys = await self.load()
        if keys:
            return keys
        # Made outside the transaction, which must stay short; looked for again inside it.
        private_key = await asyncio.to_thread(new_private_key, self._key_size)
        async with self._database.transaction() as transaction:
            await transaction.rows("SELECT pg_advisory_xact_lock($1)", _LOCK)
            if not await transaction.row("SELECT 1 FROM signing_keys LIMIT 1"):
                now = await read_time(transaction, self._database.clock)
                await transaction.rows(
                    "INSERT INTO signing_keys (kid, public_key, private_key, created_at, signs_from)"
                    " VALUES ($1, $2, $3, $4, $4)",
                    *self._columns(private_key),
                    now,
                )
        return await self.load()

    def _columns(self, private_key: RSAPrivateKey) -> tuple[str, bytes, bytes]:
        public_key = private_key.public_key()
        return (
            thumbprint(public_key),
            public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            self._cipher.encrypt(private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())),
        )

    def _key(self, row: Row) -> SigningKey:
        public_key = load_der_public_key(row["public_key"])
        assert isinstance(public_key, RSAPublicKey)
        private_key = None
        if row["private_key"] is not None:
            loaded = load_der_private_key(self._cipher.decrypt(row["private_key"]), password=None)
            assert isinstance(loaded, RSAPrivateKey)
            private_key = loaded
            # A row swapped for another's would sign under a `kid` that is not its own.
            if thumbprint(private_key.public_key()) != row["kid"]:
                raise WrongEncryptionKey(f"the stored private key of {row['kid']} is not its own")
        if thumbprint(public_key) != row["kid"]:
            raise WrongEncryptionKey(f"the stored public key of {row['kid']} is not its own")
        return SigningKey(row["kid"], public_key, private_key, row["signs_from"])
