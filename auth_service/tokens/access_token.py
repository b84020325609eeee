"""The access token (RFC 9068): what it says and how it is signed. Reading one back is `verifier/claims.py`'s."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from auth_service.keys.signing_key import SigningKey
from auth_service.tokens import scope as scopes


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
        # A token that opens this service itself must not be replayed by a downstream service that it was sent to.
        privileged = any(map(scopes.is_privileged, self.scope))
        audiences = (self.issuer,) if privileged else self.audiences
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "sub": self.subject,
            "aud": audiences[0] if len(audiences) == 1 else list(audiences),
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
