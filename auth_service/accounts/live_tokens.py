"""Whether an access token is good now, asked of PostgreSQL itself: no feed, no cache, no look-back."""

from dataclasses import dataclass
from datetime import datetime

from auth_service.accounts.clients import Client, Clients
from auth_service.keys.key_ring import KeyRing
from auth_service.revocation import journal
from auth_service.sessions.store import SessionStore
from auth_service.stores.database import Database
from auth_service.tokens.access_token import SignedPayload
from auth_service.tokens.subject import Subject
from auth_service.verifier.claims import AccessTokenClaims
from auth_service.verifier.errors import InvalidClaim, RevokedToken
from auth_service.verifier.revocations import Kind


@dataclass(frozen=True, slots=True)
class LiveAccessToken:
    """A good access token at `now`. `subject` is its user as they are then, or `client` the client whose own it is."""

    now: datetime
    claims: AccessTokenClaims
    subject: Subject | None
    client: Client | None

    @property
    def held_scopes(self) -> frozenset[str]:
        """What its bearer holds now, whatever the token says."""
        if self.subject is not None:
            return self.subject.held_scopes
        return self.client.scope if self.client is not None else frozenset()


class LiveTokens:
    """Reads access tokens of this issuer, of users and of clients. Raises Unavailable when PostgreSQL is away."""

    def __init__(
        self, *, issuer: str, database: Database, keys: KeyRing, sessions: SessionStore, clients: Clients
    ) -> None:
        self._issuer = issuer
        self._database = database
        self._keys = keys
        self._sessions = sessions
        self._clients = clients

    async def access_token(self, text: str) -> LiveAccessToken:
        """What `text` says, for whatever audience. Raises InvalidToken: also for an ended session, a removed client."""
        signed = await SignedPayload.parse(text, keys=self._keys)
        if "sid" in signed.claims:
            standing = await self._sessions.standing(signed.session_id)
            claims = self._checked(signed, standing.now)
            if standing.alive is None:
                raise RevokedToken("its session has ended")
            session, subject = standing.alive
            if (claims.subject, claims.client_id) != (str(session.user_id), session.client_id):
                raise InvalidClaim("sid", "the session is another user's or client's")
            live = LiveAccessToken(standing.now, claims, subject, None)
        else:
            now = await self._database.now()
            claims = self._checked(signed, now)
            client = await self._clients.find(claims.client_id)
            if claims.subject != claims.client_id or client is None:
                raise RevokedToken("its client has been removed")
            live = LiveAccessToken(now, claims, None, client)
        names: list[tuple[Kind, str]] = [("j", claims.token_id), ("c", claims.client_id), ("k", signed.kid)]
        if await journal.holds(self._database, names):
            raise RevokedToken("it has been revoked")
        return live

    def _checked(self, signed: SignedPayload, now: datetime) -> AccessTokenClaims:
        return AccessTokenClaims.parse(signed.claims, issuer=self._issuer, audience=(), now=now.timestamp())
