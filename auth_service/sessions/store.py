"""The `sessions` table: reading one with its user, opening one, listing a user's. Ending one is `ending.py`'s."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from auth_service.sessions.session import Device, Opening, Session, Standing
from auth_service.settings import Settings
from auth_service.stores.database import Database, Row, Statements
from auth_service.tokens import scope as scopes
from auth_service.tokens.subject import Subject

# One row comes back whether or not the session exists: the time is wanted either way.
_STANDING = """
SELECT clock_timestamp() AS now, s.*, u.username, u.email, u.granted_scopes, u.disabled_at
FROM (SELECT 1) AS one
LEFT JOIN sessions s ON s.id = $1
LEFT JOIN users u ON u.id = s.user_id
"""


class SessionStore:
    """Reads and opens sessions. Every method raises Unavailable when PostgreSQL is away."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._default_scopes = frozenset(settings.default_scopes)
        self._life: timedelta = settings.session_ttl
        # Unused for so long, nothing of a session is good any more: the last tokens of a generation are made at the end
        # of its window, and an access token is not always the shorter-lived.
        self._idle_life = max(settings.refresh_token_ttl, settings.access_token_ttl) + settings.refresh_replay_window
        self._client_id = settings.first_party_client_id

    async def standing(self, session_id: UUID) -> Standing:
        """The session, its user and the time, in one indexed read."""
        row = (await self._database.rows(_STANDING, session_id))[0]
        now = self._database.clock.now(row["now"])
        if row["id"] is None:
            return Standing(now, None, None, user_disabled=False)
        subject = Subject(row["user_id"], row["username"], row["email"], self.held_scopes(row["granted_scopes"]))
        return Standing(now, _session(row), subject, user_disabled=row["disabled_at"] is not None)

    def held_scopes(self, granted_scopes: str) -> frozenset[str]:
        """What a user holds: the default scopes and their own grants."""
        return self._default_scopes | scopes.split(granted_scopes)

    async def open(self, transaction: Statements, subject: Subject, opening: Opening, *, now: datetime) -> Session:
        """Write a new session, at generation 1 and not yet rotated. The first refresh makes its Redis key."""
        session = Session(
            id=uuid4(),
            user_id=subject.id,
            client_id=self._client_id,
            transport=opening.transport,
            scope=scopes.grantable(opening.scope, subject.held_scopes),
            created_at=now,
            expires_at=now + self._life,
            generation=1,
            rotated_at=None,
            unanswered=None,
            last_used_at=now,
            device=Device(opening.source.ip, opening.source.user_agent),
            last_ip=None,
            revoked_at=None,
        )
        await transaction.rows(
            "INSERT INTO sessions (id, user_id, client_id, transport, scope, created_at, expires_at, generation,"
            " last_used_at, ip, user_agent) VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $6, $8, $9)",
            session.id,
            session.user_id,
            session.client_id,
            session.transport,
            scopes.join(session.scope),
            session.created_at,
            session.expires_at,
            session.device.ip,
            session.device.user_agent,
        )
        return session

    async def note_unanswered(self, session_id: UUID, generation: int) -> None:
        """Remember that this generation was used, and that nobody knows what came of it."""
        await self._database.rows(
            "UPDATE sessions SET unanswered = $2 WHERE id = $1 AND coalesce(unanswered, 0) < $2", session_id, generation
        )

    async def live_of_user(
        self, user_id: UUID, *, now: datetime, after: tuple[datetime, UUID] | None = None, limit: int | None = None
    ) -> Sequence[Session]:
        """The live sessions of a user, the newest first; from the one after that of this `created_at` and `id`.

        All of them, unless there is a `limit`.
        """
        rows = await self._database.rows(
            "SELECT * FROM sessions WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > $2 AND last_used_at > $3"
            " AND ($5::timestamptz IS NULL OR (created_at, id) < ($5, $6::uuid))"
            " ORDER BY created_at DESC, id DESC LIMIT $4",
            user_id,
            now,
            now - self._idle_life,
            limit,
            *(after or (None, None)),
        )
        return [_session(row) for row in rows]


def _session(row: Row) -> Session:
    return Session(
        id=row["id"],
        user_id=row["user_id"],
        client_id=row["client_id"],
        transport=row["transport"],
        scope=scopes.split(row["scope"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        generation=row["generation"],
        rotated_at=row["rotated_at"],
        unanswered=row["unanswered"],
        last_used_at=row["last_used_at"],
        device=Device(row["ip"], row["user_agent"]),
        last_ip=row["last_ip"],
        revoked_at=row["revoked_at"],
    )
