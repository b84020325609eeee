"""Issuing: the tokens that one session is given at one moment."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from auth_service.keys.key_ring import KeyRing
from auth_service.metrics import TOKENS_ISSUED
from auth_service.sessions.session import Session, Transport
from auth_service.settings import Settings
from auth_service.tokens import scope as scopes
from auth_service.tokens.access_token import AccessToken
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


class TokenIssuer:
    """Signs tokens for sessions. Raises Unavailable when no signing key is held."""

    def __init__(self, settings: Settings, keys: KeyRing) -> None:
        self._settings = settings
        self._keys = keys

    def issue(
        self,
        session: Session,
        subject: Subject,
        *,
        generation: int,
        now: datetime,
        grant: Grant,
        held: RefreshToken | None = None,
        scope: frozenset[str] | None = None,
    ) -> IssuedTokens:
        """Tokens for `session` at `generation`. `held`: what the caller presented, where that is of this generation.
        `scope`: what the access token may say at most; None: all that the session was given and the user holds.

        A cookie is written only for a new generation: an older answer that arrives late must not overwrite a newer one.
        """
        settings = self._settings
        key = self._keys.signing_key(now)
        given = session.scope & subject.held_scopes
        granted = given if scope is None else given & scope
        access_token = AccessToken(
            issuer=settings.issuer,
            subject=str(subject.id),
            audiences=settings.access_token_audiences,
            client_id=session.client_id,
            scope=granted,
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
        TOKENS_ISSUED.labels(grant=grant, kind="access").inc()
        if kept is None:
            TOKENS_ISSUED.labels(grant=grant, kind="refresh").inc()
        return IssuedTokens(
            access_token=access_token.sign(key),
            expires_in=_whole_seconds(now, access_token.expires_at),
            refresh_token=None if kept else refresh_token.sign(key),
            refresh_expires_in=_whole_seconds(now, refresh_token.expires_at),
            scope=scopes.join(granted),
            subject=subject,
            transport=session.transport,
        )


def _whole_seconds(now: datetime, later: datetime) -> int:
    return max(0, int(later.timestamp()) - int(now.timestamp()))
