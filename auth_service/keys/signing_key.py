"""One RSA signing key: its `kid`, its public JWK, and signing. When it may is for `schedule.py` to say, and storing it
for `store.py`."""

import hashlib
import json
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key

from auth_service.keys.schedule import KeyLife


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key of the ring. `private_key` is None for one that only verifies any more, or that cannot be decrypted."""

    life: KeyLife
    public_key: RSAPublicKey = field(repr=False)
    private_key: RSAPrivateKey | None = field(repr=False)

    @property
    def kid(self) -> str:
        return self.life.kid

    def sign(self, claims: dict[str, Any], *, typ: str) -> str:
        """`claims` as a compact JWS of this `typ`. The key was parsed once: a PEM each time would cost 30 ms."""
        assert self.private_key is not None, "the ring hands out no key for signing that cannot"
        return jwt.encode(claims, self.private_key, "RS256", {"typ": typ, "kid": self.kid})

    @property
    def jwk(self) -> dict[str, str]:
        """The public JWK (RFC 7517), and nothing that is not public."""
        return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, **public_members(self.public_key)}


def new_private_key(bits: int) -> RSAPrivateKey:
    """A new RSA key; takes tens to hundreds of milliseconds of CPU."""
    return generate_private_key(public_exponent=65537, key_size=bits)


def thumbprint(public_key: RSAPublicKey) -> str:
    """The JWK thumbprint (RFC 7638) with SHA-256, which is our `kid`."""
    members: dict[str, Any] = {"kty": "RSA", **public_members(public_key)}
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return _base64url(hashlib.sha256(canonical.encode("ascii")).digest())


def public_members(public_key: RSAPublicKey) -> dict[str, str]:
    """`n` and `e` as a JWK holds them (RFC 7518 §6.3.1)."""
    numbers = public_key.public_numbers()
    return {"n": _base64url_integer(numbers.n), "e": _base64url_integer(numbers.e)}


def _base64url_integer(value: int) -> str:
    return _base64url(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
