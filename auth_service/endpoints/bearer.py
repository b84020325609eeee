"""The bearer of a request: a first-party access token, checked against its session as PostgreSQL knows it now."""

from dataclasses import dataclass
from datetime import datetime

from starlette.requests import Request

from auth_service.endpoints.authorization import presented_access_token
from auth_service.errors import InvalidBearer
from auth_service.keys.key_ring import KeyRing
from auth_service.sessions.session import Session
from auth_service.sessions.store import SessionStore
from auth_service.tokens.access_token import SignedPayload
from auth_service.tokens.subject import Subject
from auth_service.verifier.claims import AccessTokenClaims
from auth_service.verifier.errors import InvalidToken


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who sent a request: a user, in a session that is alive."""

    session: Session
    subject: Subject
    claims: AccessTokenClaims
    now: datetime


class BearerAuthentication:
    """Finds out who bears an access token. Unlike a downstream verifier, it sees that a session has ended the moment it
    does; that a key was revoked, as all others, within two seconds."""

    def __init__(self, *, issuer: str, client_id: str, keys: KeyRing, sessions: SessionStore) -> None:
        self._issuer = issuer
        self._client_id = client_id
        self._keys = keys
        self._sessions = sessions

    async def authenticate(self, request: Request) -> Bearer:
        """Raises InvalidBearer, UnreadableBearer, Unavailable."""
        access_token = presented_access_token(request)
        if access_token is None:
            raise InvalidBearer("no credentials", presented=False)
        try:
            signed = await SignedPayload.parse(access_token, keys=self._keys)
            standing = await self._sessions.standing(signed.session_id)
            now = standing.now.timestamp()
            claims = AccessTokenClaims.parse(signed.claims, issuer=self._issuer, audience=(), now=now)
        except InvalidToken as exc:
            raise InvalidBearer(str(exc)) from None
        alive = standing.alive
        if alive is None:
            raise InvalidBearer("the session has ended")
        session, subject = alive
        if (claims.subject, claims.client_id) != (str(session.user_id), session.client_id):
            raise InvalidBearer("the session is another user's or client's")
        if claims.client_id != self._client_id and self._issuer not in claims.audience:
            raise InvalidBearer("not a first-party token")
        return Bearer(session, subject, claims, standing.now)
