"""The signing keys in PostgreSQL, private halves encrypted. What a process holds of them is `key_ring.py`'s.

A key is parsed and decrypted once, when this process first sees it; after that only its times are read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

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
from auth_service.keys.schedule import KeyLife, Period
from auth_service.keys.signing_key import SigningKey, thumbprint
from auth_service.stores.database import READ_ONLY, Database, Row, Statements

# The time comes with the rows and also where there are none.
_READ_LIVES = f"""
SELECT t.now, t.read_only, kid, created_at, signs_from, signs_until, refresh_token_life, revoked_at,
       private_key IS NOT NULL AS has_private_half
FROM (SELECT clock_timestamp() AS now, {READ_ONLY} AS read_only) AS t LEFT JOIN signing_keys ON true
ORDER BY created_at, signs_from
"""  # noqa: S608 — a constant of ours
_READ_HALVES = "SELECT kid, public_key, private_key FROM signing_keys WHERE kid = ANY ($1::text[])"


@dataclass(frozen=True, slots=True)
class Halves:
    """A key parsed. `private_key` is None where the row has none any more, or one that could not be decrypted."""

    public_key: RSAPublicKey = field(repr=False)
    private_key: RSAPrivateKey | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class StoredKeys:
    """Every key as it was at `now`, oldest first, and why the private half of some could not be read."""

    now: datetime
    keys: tuple[SigningKey, ...]
    unreadable: Mapping[str, WrongEncryptionKey]
    read_only: bool
    """Whether the server that was read takes no writes: it may not have every key yet."""

    @property
    def lives(self) -> tuple[KeyLife, ...]:
        return tuple(key.life for key in self.keys)

    def require_readable(self) -> None:
        """Raises WrongEncryptionKey: whoever cannot read what is there must not write beside it."""
        for problem in self.unreadable.values():
            raise problem


class SigningKeyStore:
    """Reads and writes the rows of `signing_keys`. Every method raises Unavailable when PostgreSQL is away."""

    def __init__(self, database: Database, cipher: KeyCipher) -> None:
        self._database = database
        self._cipher = cipher
        self._parsed: dict[str, Halves] = {}

    async def load(self, statements: Statements | None = None) -> StoredKeys:
        """Every key that there is, and the time. A key that cannot be decrypted is tried again each time."""
        statements = statements or self._database
        rows = await statements.rows(_READ_LIVES)
        now = self._database.clock.now(rows[0]["now"])
        lives = [_life(row) for row in rows if row["kid"] is not None]
        parsed, unreadable = await self._halves(statements, lives)
        # What is gone from the table, or has given up its private half, is forgotten here as well.
        self._parsed = {
            life.kid: found if life.has_private_half else Halves(found.public_key, None)
            for life in lives
            if (found := parsed.get(life.kid)) is not None
        }
        keys = (
            SigningKey(life, self._parsed[life.kid].public_key, self._parsed[life.kid].private_key)
            for life in lives
            if life.kid in self._parsed
        )
        return StoredKeys(now, tuple(keys), unreadable, rows[0]["read_only"])

    async def add(
        self, transaction: Statements, private_key: RSAPrivateKey, period: Period, *, life: timedelta, now: datetime
    ) -> str:
        """Store a key that was made; answers its `kid`. `life`: how long its refresh tokens may live."""
        public_key = private_key.public_key()
        kid = thumbprint(public_key)
        await transaction.rows(
            "INSERT INTO signing_keys (kid, public_key, private_key, created_at, signs_from, signs_until,"
            " refresh_token_life) VALUES ($1, $2, $3, $4, $5, $6, $7)",
            kid,
            public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            self._cipher.encrypt(private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())),
            now,
            period.signs_from,
            period.signs_until,
            int(life.total_seconds()),
        )
        return kid

    async def write(self, transaction: Statements, life: KeyLife) -> None:
        """Store the times of a key. A private half that it is not to have any more is gone for good."""
        await transaction.rows(
            "UPDATE signing_keys SET signs_from = $2, signs_until = $3, refresh_token_life = $4, revoked_at = $5,"
            " private_key = CASE WHEN $6 THEN private_key END WHERE kid = $1",
            life.kid,
            life.signs_from,
            life.signs_until,
            int(life.refresh_token_life.total_seconds()),
            life.revoked_at,
            life.has_private_half,
        )

    async def remove(self, transaction: Statements, kids: Iterable[str]) -> None:
        await transaction.rows("DELETE FROM signing_keys WHERE kid = ANY ($1::text[])", list(kids))

    async def _halves(
        self, statements: Statements, lives: Sequence[KeyLife]
    ) -> tuple[dict[str, Halves], dict[str, WrongEncryptionKey]]:
        """What was parsed before and what is new, by `kid`; and why some are not whole."""
        parsed, unreadable = dict(self._parsed), dict[str, WrongEncryptionKey]()
        new = [life.kid for life in lives if not _is_whole(parsed.get(life.kid), life)]
        if new:
            for row in await statements.rows(_READ_HALVES, new):
                try:
                    parsed[row["kid"]] = self._parse(row)
                except WrongEncryptionKey as exc:
                    unreadable[row["kid"]] = exc
                    public_key = _public_key(row)
                    if public_key is not None:
                        parsed[row["kid"]] = Halves(public_key, None)
        return parsed, unreadable

    def _parse(self, row: Row) -> Halves:
        """Raises WrongEncryptionKey."""
        public_key = _public_key(row)
        if public_key is None:
            raise WrongEncryptionKey(f"the stored public key of {row['kid']} is not its own")
        if row["private_key"] is None:
            return Halves(public_key, None)
        # Unchecked: testing the primes takes 50 to 400 ms, which no thread helps with (the GIL is held). What the
        # cipher has authenticated is what we once stored.
        private_key = load_der_private_key(
            self._cipher.decrypt(row["private_key"]), password=None, unsafe_skip_rsa_key_validation=True
        )
        # A row swapped for another's would sign under a `kid` that is not its own.
        if not isinstance(private_key, RSAPrivateKey) or thumbprint(private_key.public_key()) != row["kid"]:
            raise WrongEncryptionKey(f"the stored private key of {row['kid']} is not its own")
        return Halves(public_key, private_key)


def _is_whole(halves: Halves | None, life: KeyLife) -> bool:
    return halves is not None and (halves.private_key is not None or not life.has_private_half)


def _public_key(row: Row) -> RSAPublicKey | None:
    """The public half, if it is the one that the `kid` names."""
    try:
        public_key = load_der_public_key(row["public_key"])
    except ValueError:
        return None
    return public_key if isinstance(public_key, RSAPublicKey) and thumbprint(public_key) == row["kid"] else None


def _life(row: Row) -> KeyLife:
    return KeyLife(
        kid=row["kid"],
        created_at=row["created_at"],
        signs_from=row["signs_from"],
        signs_until=row["signs_until"],
        refresh_token_life=timedelta(seconds=row["refresh_token_life"]),
        revoked_at=row["revoked_at"],
        has_private_half=row["has_private_half"],
    )
