"""Verified tokens, remembered so that a signature is checked once. What is remembered is never trusted for its age."""

import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from auth_service.verifier.claims import AccessTokenClaims
from auth_service.verifier.revocations import Name


@dataclass(slots=True)
class VerifiedToken:
    """A token whose signature and claims were found good: with which key, and under which names it may be revoked."""

    claims: AccessTokenClaims
    kid: str
    key: RSAPublicKey
    names: tuple[Name, ...]


class TokenCache:
    """At most `size` verified tokens, by the SHA-256 of their text: a dump of it holds no token that can be used.

    The older half is dropped at once when the newer half is full, and what is used moves to the newer half. A size
    below two remembers nothing.
    """

    def __init__(self, size: int) -> None:
        self._half = max(size // 2, 0)
        self._newer: dict[bytes, VerifiedToken] = {}
        self._older: dict[bytes, VerifiedToken] = {}

    def __len__(self) -> int:
        return len(self._newer) + len(self._older.keys() - self._newer.keys())

    def get(self, digest: bytes) -> VerifiedToken | None:
        found = self._newer.get(digest)
        if found is None:
            found = self._older.get(digest)
            if found is not None:
                self.put(digest, found)
        return found

    def put(self, digest: bytes, verified: VerifiedToken) -> None:
        if not self._half:
            return
        if len(self._newer) >= self._half:
            self._older, self._newer = self._newer, {}
        self._newer[digest] = verified

    def drop(self, digest: bytes) -> None:
        self._newer.pop(digest, None)
        self._older.pop(digest, None)


def digest(access_token: bytes) -> bytes:
    """The key of a token in the cache."""
    return hashlib.sha256(access_token).digest()
