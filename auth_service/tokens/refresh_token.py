"""The refresh token: a JWT that carries its session and generation, signed and read back here.

Because the generation travels in the token, Redis can be lost and nobody is logged out (`sessions/rotation.py`).
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID, uuid4

from auth_service.keys.key_ring import KeyRing
from auth_service.keys.signing_key import SigningKey
from auth_service.verifier.claims import text_claim, time_claim
from auth_service.verifier.errors import InvalidClaim
from auth_service.verifier.jws import CompactJWS

TYPE = "rt+jwt"


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """The claims of a refresh token."""

    issuer: str
    subject: UUID
    client_id: str
    session_id: UUID
    generation: int
    issued_at: datetime
    expires_at: datetime

    def sign(self, key: SigningKey) -> str:
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.issuer,
            "sub": str(self.subject),
            "client_id": self.client_id,
            "sid": str(self.session_id),
            "gen": self.generation,
            "jti": str(uuid4()),
            "iat": int(self.issued_at.timestamp()),
            "exp": int(self.expires_at.timestamp()),
        }
        return key.sign(claims, typ=TYPE)

    @classmethod
    async def parse(cls, text: str, *, keys: KeyRing, issuer: str) -> Self:
        """The claims of `text`, if this issuer signed it as a refresh token. Expired ones are read too.

        Raises InvalidToken for everything else; RevokedToken where its key has been revoked; Unavailable where it
        cannot be known whether its key is one of `keys`.
        """
        jws = CompactJWS.parse(text, types=(TYPE,))
        payload = jws.payload(await keys.public_key(jws.kid))
        for claim in ("iss", "aud"):
            if text_claim(payload, claim) != issuer:
                raise InvalidClaim(claim, "another issuer")
        generation = payload.get("gen")
        if isinstance(generation, bool) or not isinstance(generation, int) or not 1 <= generation < 2**31:
            raise InvalidClaim("gen", "not a generation")
        return cls(
            issuer=issuer,
            subject=_uuid(payload, "sub"),
            client_id=text_claim(payload, "client_id"),
            session_id=_uuid(payload, "sid"),
            generation=generation,
            issued_at=_moment(payload, "iat"),
            expires_at=_moment(payload, "exp"),
        )


def _uuid(payload: dict[str, Any], claim: str) -> UUID:
    try:
        return UUID(text_claim(payload, claim))
    except ValueError:
        raise InvalidClaim(claim, "not a UUID") from None


def _moment(payload: dict[str, Any], claim: str) -> datetime:
    return datetime.fromtimestamp(time_claim(payload, claim), UTC)
