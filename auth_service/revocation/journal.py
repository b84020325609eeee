"""The revocation journal: the durable list of what may no longer be used although its signature is good.

Written in the transaction that ends the thing, so an answered logout is never forgotten. What verifiers hear of it is
not this file's concern.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal

from auth_service.metrics import REVOCATIONS
from auth_service.settings import ACCESS_TOKEN_TTL_CEILING
from auth_service.stores.database import Statements

Kind = Literal["s", "j", "c", "k"]
"""s session, j token, c client, k key."""

RETENTION = ACCESS_TOKEN_TTL_CEILING + timedelta(seconds=60)
"""How long an entry matters: the longest life of an access token under any setting, and a leeway."""


async def revoke(transaction: Statements, kind: Kind, claims: Iterable[str], *, reason: str, now: datetime) -> None:
    """Write that each of `claims` is revoked since `now`. One already in the journal stays as it is."""
    claims = list(claims)
    if not claims:
        return
    written = await transaction.rows(
        "INSERT INTO revocations (kind, claim, reason, revoked_at, expires_at)"
        " SELECT $1, claim, $3, $4, $5 FROM unnest($2::text[]) AS claim"
        " ON CONFLICT (kind, claim) DO NOTHING RETURNING id",
        kind,
        claims,
        reason,
        now,
        now + RETENTION,
    )
    REVOCATIONS.labels(kind=kind, reason=reason).inc(len(written))
