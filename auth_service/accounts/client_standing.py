"""A client as the bearer of a service token: whether it is there now, and which scopes are its own now."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from auth_service.stores.database import Database
from auth_service.tokens import scope as scopes

# One row comes back whether or not the client exists: the time is wanted either way.
_STANDING = """
SELECT clock_timestamp() AS now, c.scope, EXISTS (
    SELECT 1 FROM revocations WHERE (kind = 'c' AND claim = $2) OR (kind = 'j' AND claim = $3)
) AS revoked
FROM (SELECT 1) AS one LEFT JOIN clients c ON c.id = $1
"""


@dataclass(frozen=True, slots=True)
class ClientStanding:
    """A client at one moment. `held_scopes` is None where there is no such client, or the token is revoked."""

    now: datetime
    held_scopes: frozenset[str] | None


async def client_standing(database: Database, client_id: UUID, *, token_id: str) -> ClientStanding:
    """The client, its token and the time, in one indexed read: uncached, so a revocation counts at once.

    Raises Unavailable.
    """
    [row] = await database.rows(_STANDING, client_id, str(client_id), token_id)
    held = None if row["scope"] is None or row["revoked"] else scopes.split(row["scope"])
    return ClientStanding(database.clock.now(row["now"]), held)
