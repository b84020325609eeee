"""Refresh: the whole protocol, from a presented refresh token to the next one.

The order matters. PostgreSQL is read before Redis is changed, so a failure in between spends nothing, and the time
that dates everything is the one that was read with the session.
"""

from datetime import datetime, timedelta
from uuid import UUID

import structlog

from auth_service import audit
from auth_service.audit import Actor, Source
from auth_service.errors import RefreshRefused, ServiceError, Unavailable
from auth_service.keys.key_ring import KeyRing
from auth_service.metrics import REFRESHES, RefreshOutcome
from auth_service.sessions.checkpoint import CheckpointWriter
from auth_service.sessions.ending import SessionEnding
from auth_service.sessions.issuing import WHOLE, IssuedTokens, Narrowing, TokenIssuer
from auth_service.sessions.rotation import Generation, Outcome, RotationStore
from auth_service.sessions.session import Session, Standing
from auth_service.sessions.store import SessionStore
from auth_service.stores.database import Database
from auth_service.tokens.refresh_token import RefreshToken
from auth_service.tokens.subject import Subject
from auth_service.verifier.errors import InvalidToken, RevokedToken

_SHARING_INTERVAL = timedelta(minutes=5)
_RECORDED_SINCE = "SELECT 1 FROM audit_events WHERE action = $1 AND target_id = $2 AND occurred_at > $3 LIMIT 1"

_log = structlog.get_logger(__name__)


class RefreshProtocol:
    """Exchanges a refresh token for new tokens (RFC 6749 §6, RFC 9700 §4.14.2)."""

    def __init__(
        self,
        *,
        issuer: str,
        database: Database,
        keys: KeyRing,
        sessions: SessionStore,
        rotations: RotationStore,
        checkpoints: CheckpointWriter,
        ending: SessionEnding,
        tokens: TokenIssuer,
    ) -> None:
        self._issuer = issuer
        self._database = database
        self._keys = keys
        self._sessions = sessions
        self._rotations = rotations
        self._checkpoints = checkpoints
        self._ending = ending
        self._tokens = tokens

    async def refresh(
        self,
        refresh_token: str,
        *,
        source: Source,
        cookie_refusal: ServiceError | None = None,
        client_id: str | None = None,
        narrowing: Narrowing = WHOLE,
    ) -> IssuedTokens:
        """New tokens for the session of `refresh_token`, which was presented from `source`.

        `cookie_refusal` is raised, before anything is spent, if the session's transport is the cookie. `client_id`:
        only for a token that this client was given. `narrowing` is of the new access token alone (RFC 6749 §6).
        Raises RefreshRefused; GrantRefused and Unavailable with nothing spent.
        """
        try:
            outcome, tokens = await self._exchange(
                refresh_token,
                source=source,
                cookie_refusal=cookie_refusal,
                client_id=client_id,
                narrowing=narrowing,
            )
        except ServiceError as exc:
            REFRESHES[_outcome_of(exc)].inc()
            raise
        REFRESHES[outcome].inc()
        return tokens

    async def _exchange(
        self,
        refresh_token: str,
        *,
        source: Source,
        cookie_refusal: ServiceError | None,
        client_id: str | None,
        narrowing: Narrowing,
    ) -> tuple[RefreshOutcome, IssuedTokens]:
        started = self._rotations.started()
        try:
            token = await RefreshToken.parse(refresh_token, keys=self._keys, issuer=self._issuer)
        except RevokedToken as exc:
            raise RefreshRefused("refresh_token_revoked", str(exc)) from None
        except InvalidToken as exc:
            raise RefreshRefused("invalid_token", str(exc)) from None
        if client_id is not None and token.client_id != client_id:
            raise RefreshRefused("invalid_token", "it was given to another client")
        rotated_from = self._checkpoints.unwritten_ip(token.session_id)
        standing = await self._sessions.standing(token.session_id)
        waited = self._database.clock.elapsed(started)
        session, subject = _permitted(token, standing)
        if session.transport == "cookie" and cookie_refusal is not None:
            raise cookie_refusal
        # While it can still be refused with nothing spent: what was rotated and not answered is reuse a window later.
        permit = self._tokens.permit(session, subject, now=standing.now, narrowing=narrowing)
        try:
            rotation = await self._rotations.rotate(
                session.id,
                token.generation,
                checkpoint=Generation(session.generation, session.rotated_at),
                now=standing.now,
                arrived=standing.now - waited,
                unanswered=session.unanswered == token.generation >= session.generation,
                started=started,
                transport=session.transport,
            )
        except Unavailable:
            await self._note_unanswered(session.id, token.generation)
            raise
        if rotation.outcome is Outcome.REUSED:
            # RFC 9700 §4.14.2: thief and owner cannot be told apart, so this session ends, and this one alone.
            await self._ending.end([session.id], reason="reuse", by=Actor("anonymous", source=source))
            _log.warning("refresh_token_reused", sid=str(session.id), sub=str(session.user_id))
            raise RefreshRefused("refresh_token_reused")
        if rotation.outcome in (Outcome.ROTATED, Outcome.ADOPTED):
            # And no older date, of a generation that is held or replayed: Redis may have lost that one since and made
            # it anew, and its window would end early. The model check finds the honest user it hits.
            self._checkpoints.note(session.id, rotation.current, ip=source.ip)
        elif rotation.outcome is Outcome.REPLAYED and session.generation < rotation.current.number:
            # Whoever made this generation may not have been told of it. From now on somebody has it.
            self._checkpoints.note(session.id, Generation(rotation.current.number, standing.now), ip=source.ip)
        outcome = _COUNTED_AS[rotation.outcome]
        if rotation.outcome is Outcome.REPLAYED:
            # Where another process rotated it a moment ago, nobody here knows yet from where: no reason to doubt.
            known = rotated_from is not None or session.generation == rotation.current.number
            if known and not source.is_near(rotated_from or session.last_ip or session.device.ip):
                outcome = "replayed_elsewhere"
                await self._note_sharing(session, source, standing.now)
        tokens = self._tokens.issue(
            permit,
            generation=rotation.current.number,
            grant="refresh",
            held=token if rotation.outcome in (Outcome.HELD, Outcome.ADOPTED) else None,
        )
        return outcome, tokens

    async def _note_unanswered(self, session_id: UUID, generation: int) -> None:
        """Redis may have rotated it, and the caller is about to be told that nothing was spent."""
        try:
            await self._sessions.note_unanswered(session_id, generation)
        except Unavailable as exc:
            _log.warning("unanswered_refresh_not_noted", sid=str(session_id), reason=exc.reason)

    async def _note_sharing(self, session: Session, source: Source, now: datetime) -> None:
        """Record that a token was used a second time from elsewhere: a thief, or somebody who has just moved.

        Once in a while for each session: whoever holds the token could otherwise fill the log.
        """
        sharing = "session.shared", str(session.id), now - _SHARING_INTERVAL
        try:
            if await self._database.row(_RECORDED_SINCE, *sharing) is None:
                await audit.record(
                    self._database,
                    "session.shared",
                    by=Actor("anonymous", source=source),
                    now=now,
                    target=("session", str(session.id)),
                    user=str(session.user_id),
                )
        except Unavailable as exc:
            # Nothing is changed here: a good user who has moved is not to lose the replay for it.
            _log.warning("session_shared_not_recorded", sid=str(session.id), reason=exc.reason)


def _permitted(token: RefreshToken, standing: Standing) -> tuple[Session, Subject]:
    """The session that `token` may refresh now. Raises RefreshRefused."""
    session, subject = standing.session, standing.subject
    if session is None or subject is None:
        raise RefreshRefused("refresh_token_revoked", "no such session")
    if (session.user_id, session.client_id) != (token.subject, token.client_id):
        raise RefreshRefused("invalid_token", "the session is another user's or client's")
    if session.revoked_at is not None:
        raise RefreshRefused("refresh_token_revoked", "the session has ended")
    if token.expires_at <= standing.now or session.expires_at <= standing.now:
        raise RefreshRefused("refresh_token_expired", "the token or its session has expired")
    if standing.user_disabled:
        raise RefreshRefused("refresh_token_revoked", "the user is disabled")
    return session, subject


_COUNTED_AS: dict[Outcome, RefreshOutcome] = {
    Outcome.ROTATED: "rotated",
    Outcome.HELD: "held",
    Outcome.REPLAYED: "replayed",
    Outcome.ADOPTED: "adopted",
}
_REFUSED_AS: dict[str, RefreshOutcome] = {
    "invalid_token": "invalid",
    "refresh_token_revoked": "revoked",
    "refresh_token_expired": "expired",
    "refresh_token_reused": "reused",
}


def _outcome_of(refusal: ServiceError) -> RefreshOutcome:
    if isinstance(refusal, RefreshRefused):
        return _REFUSED_AS[refusal.code]
    return "unavailable" if isinstance(refusal, Unavailable) else "refused"
