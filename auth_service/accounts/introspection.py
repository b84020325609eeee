"""Introspection (RFC 7662): what a token says and whether it is live, told to whom it concerns.

A client is told of its own tokens, and of access tokens for one of its audiences; one that may have the scope
`auth:introspect`, of every token of this issuer, refresh tokens included. For all others a token is not live (§2.2).
"""

from dataclasses import dataclass

from auth_service.accounts.client_grant import audiences_of
from auth_service.accounts.clients import AuthenticatedClient
from auth_service.accounts.live_tokens import LiveAccessToken, LiveTokens
from auth_service.keys.key_ring import KeyRing
from auth_service.sessions.rotation import Generation, RotationStore
from auth_service.sessions.session import Session
from auth_service.sessions.store import SessionStore
from auth_service.settings import Settings
from auth_service.tokens.refresh_token import RefreshToken
from auth_service.tokens.subject import Subject
from auth_service.verifier.errors import InvalidToken

INTROSPECT_SCOPE = "auth:introspect"


@dataclass(frozen=True, slots=True)
class LiveRefreshToken:
    """A refresh token that is its session's current one."""

    claims: RefreshToken
    session: Session
    subject: Subject


class Introspection:
    """Looks at tokens without using them. Raises Unavailable where a store that it has to ask is away."""

    def __init__(
        self,
        settings: Settings,
        *,
        keys: KeyRing,
        sessions: SessionStore,
        rotations: RotationStore,
        live_tokens: LiveTokens,
    ) -> None:
        self._issuer = settings.issuer
        self._audiences = settings.access_token_audiences
        self._keys = keys
        self._sessions = sessions
        self._rotations = rotations
        self._live_tokens = live_tokens

    async def introspect(self, token: str, *, caller: AuthenticatedClient) -> LiveAccessToken | LiveRefreshToken | None:
        """The token, of whichever kind; None where it is not live, or does not concern the caller."""
        try:
            refresh_token = await RefreshToken.parse(token, keys=self._keys, issuer=self._issuer)
        except InvalidToken:
            return await self._access_token(token, caller)
        return await self._refresh_token(refresh_token, caller)

    async def _access_token(self, text: str, caller: AuthenticatedClient) -> LiveAccessToken | None:
        try:
            live = await self._live_tokens.access_token(text)
        except InvalidToken:
            return None
        client, claims = caller.client, live.claims
        concerned = (
            claims.client_id == str(client.id)
            or not set(claims.audience).isdisjoint(audiences_of(client, default=self._audiences))
            or INTROSPECT_SCOPE in client.scope
        )
        return live if concerned else None

    async def _refresh_token(self, refresh_token: RefreshToken, caller: AuthenticatedClient) -> LiveRefreshToken | None:
        # They are all of the first-party client, which cannot prove who it is, and so may not ask.
        if INTROSPECT_SCOPE not in caller.client.scope:
            return None
        standing = await self._sessions.standing(refresh_token.session_id)
        if standing.alive is None or refresh_token.expires_at <= standing.now:
            return None
        session, subject = standing.alive
        if (session.user_id, session.client_id) != (refresh_token.subject, refresh_token.client_id):
            return None
        checkpoint = Generation(session.generation, session.rotated_at)
        if refresh_token.generation < await self._rotations.current(session.id, checkpoint=checkpoint):
            return None  # consumed, even where a replay would still be answered
        return LiveRefreshToken(refresh_token, session, subject)
