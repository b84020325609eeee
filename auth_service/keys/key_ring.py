"""The keys that this process holds in memory: which one signs now, which ones verify, and the JWKS made of them."""

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from auth_service.errors import Unavailable
from auth_service.keys.readings import Readings
from auth_service.keys.signing_key import SigningKey
from auth_service.verifier.errors import RevokedToken, UnknownKey


class KeyRing:
    """Many keys by `kid`. Empty until the first `replace`; what it holds is answered from memory, whatever happens to
    PostgreSQL. What it does not hold may have been made elsewhere since it was last read: only `readings` can tell."""

    def __init__(self) -> None:
        self.readings = Readings()
        self._keys: dict[str, SigningKey] = {}
        self._able: list[SigningKey] = []
        """Those that may sign at some time: a few, however many that are retired are kept."""
        self.jwks = b""
        self.etag = ""

    def replace(self, keys: Iterable[SigningKey], *, now: datetime) -> None:
        """Hold exactly `keys` from now on. The JWKS has those of them that are published at `now`."""
        self._keys = {key.kid: key for key in keys}
        self._able = [key for key in self._keys.values() if key.life.has_private_half]
        document = {"keys": [key.jwk for key in self._keys.values() if key.life.is_published(now)]}
        self.jwks = json.dumps(document, separators=(",", ":")).encode("ascii")
        self.etag = f'"{hashlib.sha256(self.jwks).hexdigest()[:32]}"'

    def __len__(self) -> int:
        return len(self._keys)

    async def public_key(self, kid: str) -> RSAPublicKey:
        """The key to verify with.

        Raises RevokedToken for a key of ours that was revoked, as long as anything that it signed might have been good;
        UnknownKey for a `kid` that names none of ours at this moment; Unavailable where that cannot be known: a token
        must be neither refused nor taken for a stranger's because PostgreSQL is away.
        """
        if kid not in self._keys:
            if not self._keys:
                raise Unavailable("no keys are held yet")
            await self.readings.next()
        key = self._keys.get(kid)
        if key is None:
            raise UnknownKey("no such key")
        if key.life.revoked_at is not None:
            raise RevokedToken("its key has been revoked")
        return key.public_key

    def signing_key(self, now: datetime) -> SigningKey:
        """The key whose time to sign it is at `now`, so that all processes change over in the same moment.

        Raises Unavailable if there is none, or if this process cannot decrypt it: never is another taken in its place.
        """
        due = [key for key in self._able if key.life.state(now) == "signing"]
        if not due:
            raise Unavailable("no signing key is held for this time")
        key = max(due, key=lambda key: key.life.signs_from)
        if key.private_key is None:
            raise Unavailable("the signing key that is due cannot be decrypted")
        return key
