"""The keys that this process holds in memory: which one signs now, which ones verify, and the JWKS made of them."""

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from auth_service.errors import Unavailable
from auth_service.keys.signing_key import SigningKey


class KeyRing:
    """Many keys by `kid`. Empty until the first `replace`; answers from memory whatever happens to PostgreSQL."""

    def __init__(self, keys: Iterable[SigningKey] = ()) -> None:
        self.replace(keys)

    def replace(self, keys: Iterable[SigningKey]) -> None:
        """Hold exactly `keys` from now on."""
        self._keys = {key.kid: key for key in keys}
        document = {"keys": [key.jwk for key in self._keys.values()]}
        self.jwks = json.dumps(document, separators=(",", ":")).encode("ascii")
        self.etag = f'"{hashlib.sha256(self.jwks).hexdigest()[:32]}"'

    def __len__(self) -> int:
        return len(self._keys)

    def public_key(self, kid: str) -> RSAPublicKey | None:
        """The key to verify with, or None for a `kid` that is not ours."""
        key = self._keys.get(kid)
        return key.public_key if key else None

    def signing_key(self, now: datetime) -> SigningKey:
        """The key that signs at `now`: the newest whose time has come. Raises Unavailable if there is none."""
        due = [key for key in self._keys.values() if key.private_key is not None and key.signs_from <= now]
        if not due:
            raise Unavailable("no signing key is held")
        return max(due, key=lambda key: key.signs_from)
