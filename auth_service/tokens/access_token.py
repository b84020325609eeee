"""The access token (RFC 9068): what it says and how it is signed. What it must say is `verifier/claims.py`'s."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID, uuid4

from auth_service.keys.key_ring import KeyRing
from auth_service.keys.signing_key import SigningKey
from auth_service.tokens import scope as scopes
from auth_service.verifier.claims import ACCESS_TOKEN_TYPES
from auth_service.verifier.errors import InvalidClaim
from auth_service.verifier.jws import CompactJWS


@dataclass(frozen=True, slots=True)
class AccessToken:
    """The claims of a user's access token. `email` is None unless the setting puts it in."""

    issuer: str
    subject: str
    audiences: tuple[str, ...]
    client_id: str
    scope: frozenset[str]
    session_id: str
    auth_time: datetime
    username: str
    email: str | None
    issued_at: datetime
    expires_at: datetime

    def sign(self, key: SigningKey) -> str:
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "sub": self.subject,
            "aud": audience_claim(self.scope, self.audiences, issuer=self.issuer),
            "client_id": self.client_id,
            "scope": scopes.join(self.scope),
            "sid": self.session_id,
            "jti": str(uuid4()),
            "iat": int(self.issued_at.timestamp()),
            "exp": int(self.expires_at.timestamp()),
            "auth_time": int(self.auth_time.timestamp()),
            "preferred_username": self.username,
        }
        if self.email is not None:
            # No mail is ever sent from here, so nobody has shown that the address is theirs.
            claims |= {"email": self.email, "email_verified": False}
        return key.sign(claims, typ="at+jwt")


@dataclass(frozen=True, slots=True)
class ServiceToken:
    """The claims of a client's own access token: no user, so no session either (RFC 9068 §2.2)."""

    issuer: str
    client_id: str
    audiences: tuple[str, ...]
    scope: frozenset[str]
    issued_at: datetime
    expires_at: datetime

    def sign(self, key: SigningKey) -> str:
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "sub": self.client_id,
            "aud": audience_claim(self.scope, self.audiences, issuer=self.issuer),
            "client_id": self.client_id,
            "scope": scopes.join(self.scope),
            "jti": str(uuid4()),
            "iat": int(self.issued_at.timestamp()),
            "exp": int(self.expires_at.timestamp()),
        }
        return key.sign(claims, typ="at+jwt")


@dataclass(frozen=True, slots=True)
class SignedPayload:
    """What an access token says, once its signature was found to be good; nothing else about it is checked."""

    kid: str
    claims: dict[str, Any]

    @classmethod
    async def parse(cls, access_token: str, *, keys: KeyRing) -> Self:
        """The payload, if one of `keys` signed it as an access token. Raises InvalidToken; Unavailable where it cannot
        be known whether its key is one of them."""
        jws = CompactJWS.parse(access_token, types=ACCESS_TOKEN_TYPES)
        return cls(jws.kid, jws.payload(await keys.public_key(jws.kid)))

    @property
    def session_id(self) -> UUID:
        """The `sid` of a user's access token. Raises InvalidClaim: a service token has none."""
        value = self.claims.get("sid")
        try:
            return UUID(value if isinstance(value, str) else "")
        except ValueError:
            raise InvalidClaim("sid", "not a session") from None


def audience_claim(scope: Iterable[str], audiences: tuple[str, ...], *, issuer: str) -> str | list[str]:
    """`aud` (RFC 7519 §4.1.3). A token that opens this service itself is for this service alone: no downstream service
    that it is sent to can replay it here."""
    if any(map(scopes.is_privileged, scope)):
        return issuer
    return audiences[0] if len(audiences) == 1 else list(audiences)


def whole_seconds(now: datetime, later: datetime) -> int:
    """`expires_in`: the difference of the two claims."""
    return max(0, int(later.timestamp()) - int(now.timestamp()))
