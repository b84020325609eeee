"""Issuing: the tokens that one session is given at one moment."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from auth_service.errors import GrantRefused
from auth_service.keys.key_ring import KeyRing
from auth_service.keys.signing_key import SigningKey
from auth_service.metrics import ACCESS_TOKENS_ISSUED, REFRESH_TOKENS_ISSUED
from auth_service.sessions.session import Session, Transport
from auth_service.settings import Settings
from auth_service.tokens import scope as scopes
from auth_service.tokens.access_token import AccessToken, whole_seconds
from auth_service.tokens.refresh_token import RefreshToken
from auth_service.tokens.subject import Subject

Grant = Literal["register", "login", "refresh"]


@dataclass(frozen=True, slots=True)
class IssuedTokens:
    """Both tokens. `refresh_token` is None where the caller already holds the one that is current."""

    access_token: str = field(repr=False)
    expires_in: int
    refresh_token: str | None = field(repr=False)
    refresh_expires_in: int
    scope: str
    subject: Subject
    transport: Transport


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What a caller asks of a new access token: less than it could have. Nothing: all of it."""

    scope: frozenset[str] | None = None
    audiences: tuple[str, ...] = ()


WHOLE = Narrowing()


@dataclass(frozen=True, slots=True)
class Permit:
    """What may be issued for a session at `now`: nothing is in its way any more."""

    session: Session
    subject: Subject
    now: datetime
    key: SigningKey
    scope: frozenset[str]
    audiences: tuple[str, ...]


class TokenIssuer:
    """Signs tokens for sessions, in two steps: all that can fail is in the first."""

    def __init__(self, settings: Settings, keys: KeyRing) -> None:
        self._settings = settings
        self._keys = keys

    def permit(self, session: Session, subject: Subject, *, now: datetime, narrowing: Narrowing = WHOLE) -> Permit:
        """What may be issued for `session`: what it was given and the user holds, narrowed.

        Raises Unavailable when no signing key is held; GrantRefused for what would widen it (RFC 6749 §6, RFC 8707
        §2.2), whereas a scope that the user has lost since the login is only left out.
        """
        scope, audiences = self._allowed(session, subject, narrowing)
        return Permit(session, subject, now, self._keys.signing_key(now), scope, audiences)

    def issue(self, permit: Permit, *, generation: int, grant: Grant, held: RefreshToken | None = None) -> IssuedTokens:
        """Tokens at `generation`. `held`: what the caller presented, where that is of this generation.

        A cookie is written only for a new generation: an older answer that arrives late must not overwrite a newer one.
        """
        settings = self._settings
        session, subject, now = permit.session, permit.subject, permit.now
        access_token = AccessToken(
            issuer=settings.issuer,
            subject=str(subject.id),
            audiences=permit.audiences,
            client_id=session.client_id,
            scope=permit.scope,
            session_id=str(session.id),
            auth_time=session.created_at,
            username=subject.username,
            email=subject.email if settings.access_token_email else None,
            issued_at=now,
            expires_at=min(now + settings.access_token_ttl, session.expires_at),
        )
        kept = held if session.transport == "cookie" else None
        refresh_token = kept or RefreshToken(
            issuer=settings.issuer,
            subject=subject.id,
            client_id=session.client_id,
            session_id=session.id,
            generation=generation,
            issued_at=now,
            expires_at=min(now + settings.refresh_token_ttl, session.expires_at),
        )
        ACCESS_TOKENS_ISSUED[grant].inc()
        if kept is None:
            REFRESH_TOKENS_ISSUED[grant].inc()
        return IssuedTokens(
            access_token=access_token.sign(permit.key),
            expires_in=whole_seconds(now, access_token.expires_at),
            refresh_token=None if kept else refresh_token.sign(permit.key),
            refresh_expires_in=whole_seconds(now, refresh_token.expires_at),
            scope=scopes.join(permit.scope),
            subject=subject,
            transport=session.transport,
        )

    def _allowed(
        self, session: Session, subject: Subject, narrowing: Narrowing
    ) -> tuple[frozenset[str], tuple[str, ...]]:
        """Scope and audiences of an access token."""
        if narrowing.scope is not None and not narrowing.scope <= session.scope:
            raise GrantRefused("invalid_scope", "A refresh may only ask for scopes that its session was given.")
        scope = session.scope & subject.held_scopes
        if narrowing.scope is not None:
            scope &= narrowing.scope
        privileged = any(map(scopes.is_privileged, scope))
        audiences = (self._settings.issuer,) if privileged else self._settings.access_token_audiences
        if not set(narrowing.audiences) <= set(audiences):
            raise GrantRefused("invalid_target", "A refresh may only ask for audiences that its tokens have anyway.")
        return scope, tuple(name for name in audiences if name in narrowing.audiences) or audiences
