"""One session as PostgreSQL knows it, and whether it is alive. Reading and writing it is `store.py`'s."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

from auth_service.audit import Source
from auth_service.tokens.subject import Subject

Transport = Literal["body", "cookie"]
"""Where the refresh token travels: in JSON, or only in a cookie that no script can read."""

EndReason = Literal["logout", "reuse", "password_change", "disabled", "deleted", "admin", "replaced", "key_revoked"]


@dataclass(frozen=True, slots=True)
class Device:
    """Where a session was opened from, for its owner to recognise it."""

    ip: str | None
    user_agent: str | None


@dataclass(frozen=True, slots=True)
class Opening:
    """How a session is to be opened. `scope` is what was asked for; None: nothing in particular.

    The sessions in `replaces` end in the same moment: their cookie is overwritten by the new one's.
    """

    transport: Transport
    scope: str | None
    source: Source
    replaces: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class Session:
    """One login. `generation` and `rotated_at` are the checkpoint: Redis may be ahead of it.

    `unanswered`: the last generation that was used without an answer from Redis, so perhaps spent.
    """

    id: UUID
    user_id: UUID
    client_id: str
    transport: Transport
    scope: frozenset[str]
    created_at: datetime
    expires_at: datetime
    generation: int
    rotated_at: datetime | None
    unanswered: int | None
    last_used_at: datetime
    device: Device = field(repr=False)
    last_ip: str | None = field(repr=False)
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Standing:
    """A session, its user and the time, all from one reading. `session` is None where there is none such."""

    now: datetime
    session: Session | None
    subject: Subject | None
    user_disabled: bool

    @property
    def alive(self) -> tuple[Session, Subject] | None:
        """The session and its user, if neither has ended, expired or been disabled."""
        if self.session is None or self.subject is None or self.user_disabled or self.session.revoked_at is not None:
            return None
        if self.session.expires_at <= self.now:
            return None
        return self.session, self.subject
