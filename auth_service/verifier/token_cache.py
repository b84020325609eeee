"""Verified tokens, remembered so that a signature is checked once. What is remembered is never trusted for its age."""

from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from auth_service.verifier.claims import AccessTokenClaims
from auth_service.verifier.revocations import Name


@dataclass(slots=True)
class VerifiedToken:
    """A token whose signature and claims were found good: with which key, until when (in seconds since the epoch, the
    leeway included), and under which names it may be revoked."""

    claims: AccessTokenClaims
    kid: str
    key: RSAPublicKey
    good_until: float
    names: tuple[Name, ...]
    identity: Any = None
    """What an adapter to a framework makes of the token: made once, and kept with it."""


class TokenCache:
    """At most `size` verified tokens, by the SHA-256 of how they were presented (the token, or the header with it): a
    dump holds none that can be used.

    The older half is dropped at once when the newer half is full, and what is used moves to the newer half. A size
    below two remembers nothing.
    """

    def __init__(self, size: int) -> None:
        self._half = max(size // 2, 0)
        self.newer: dict[bytes, VerifiedToken] = {}
        """What was used last: a request may look here first, and spare itself a call."""
        self._older: dict[bytes, VerifiedToken] = {}

    def __len__(self) -> int:
        return len(self.newer) + len(self._older.keys() - self.newer.keys())

    def get(self, digest: bytes) -> VerifiedToken | None:
        found = self.newer.get(digest)
        if found is None:
            found = self._older.get(digest)
            if found is not None:
                self.put(digest, found)
        return found

    def put(self, digest: bytes, verified: VerifiedToken) -> None:
        if not self._half:
            return
        if len(self.newer) >= self._half:
            self._older, self.newer = self.newer, {}
        self.newer[digest] = verified
