"""The `clients` table: services that get tokens of their own, or ask about those of others, and their secrets.

What a client may ask for is decided in `client_grant.py`. A client id is made here and never given twice, so whatever
speaks of a removed client never comes to mean another one.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, get_args
from uuid import UUID, uuid4

import asyncpg

from auth_service import audit
from auth_service.audit import Actor
from auth_service.errors import InvalidClient, InvalidRequest, NotFound, Taken
from auth_service.metrics import CLIENT_AUTHENTICATIONS
from auth_service.revocation import journal
from auth_service.revocation.announcer import Announcer
from auth_service.stores.database import Database, Row, read_time
from auth_service.tokens import scope as scopes

GrantType = Literal["client_credentials"]
GRANT_TYPES: tuple[GrantType, ...] = get_args(GrantType)

NAME_PATTERN = r"^[A-Za-z0-9._-]{1,64}$"
OVERLAP = timedelta(hours=24)
"""How long the previous secret stays good after a rotation, unless somebody says otherwise."""
LONGEST_OVERLAP = timedelta(days=30)

_SECRET_BYTES = 32
_NO_HASH = bytes(32)
_AUDIENCES_LENGTH = 1024
"""Characters: every token holds them, and verifiers take none over 8 KiB."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What a client is to be (RFC 7591 §2). Without `audiences` its tokens are for those of AUTH_AUDIENCES."""

    name: str
    grant_types: tuple[GrantType, ...] = GRANT_TYPES
    scope: frozenset[str] = frozenset()
    audiences: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises InvalidRequest, which names every field that is wrong."""
        wrong = []
        if not re.fullmatch(NAME_PATTERN, self.name):
            wrong.append(("client_name", "must have from 1 to 64 characters, each a letter, a digit or one of . _ -"))
        if not set(self.grant_types) <= set(GRANT_TYPES):
            wrong.append(("grant_types", f"must be among: {', '.join(GRANT_TYPES)}"))
        if not all(map(scopes.is_valid, self.scope)) or len(scopes.join(self.scope)) > scopes.MAX_LENGTH:
            wrong.append(("scope", "must be printable ASCII without quote and backslash, and not too long"))
        if not all(map(_is_audience, self.audiences)) or len(" ".join(self.audiences)) > _AUDIENCES_LENGTH:
            wrong.append(("audiences", f"must be names without white space, together at most {_AUDIENCES_LENGTH} long"))
        if wrong:
            raise InvalidRequest(
                f"These fields are wrong: {', '.join(name for name, _ in wrong)}.", fields=tuple(wrong)
            )


@dataclass(frozen=True, slots=True)
class Client:
    """A row of `clients`, without its secrets. `previous_secret_until`: None where only one secret is good."""

    id: UUID
    name: str
    grant_types: frozenset[str]
    scope: frozenset[str]
    audiences: tuple[str, ...]
    created_at: datetime
    previous_secret_until: datetime | None

    @property
    def metadata(self) -> dict[str, Any]:
        """Its members, under the names of RFC 7591 §3.2.1 where that has one."""
        return {
            "client_id": self.id,
            "client_name": self.name,
            "grant_types": sorted(self.grant_types),
            "scope": scopes.join(self.scope),
            "audiences": list(self.audiences),
            "created_at": self.created_at,
            "previous_secret_until": self.previous_secret_until,
        }


@dataclass(frozen=True, slots=True)
class AuthenticatedClient:
    """A client that has proved who it is, as of `now`."""

    client: Client
    now: datetime


class Clients:
    """Keeps the clients. Every method raises Unavailable when PostgreSQL is away; Redis being away changes nothing."""

    def __init__(self, database: Database, announcer: Announcer) -> None:
        self._database = database
        self._announcer = announcer

    async def add(self, registration: Registration, *, by: Actor) -> tuple[Client, str]:
        """A new client and its secret, which is told this once. Raises Taken."""
        secret = _new_secret()
        async with self._database.transaction() as transaction:
            now = await read_time(transaction, self._database.clock)
            try:
                row = await transaction.row(
                    "INSERT INTO clients (id, name, secret_hash, grant_types, scope, audiences, created_at)"
                    " VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING *",
                    uuid4(),
                    registration.name,
                    _hash(secret),
                    " ".join(sorted(set(registration.grant_types))),
                    scopes.join(registration.scope),
                    " ".join(dict.fromkeys(registration.audiences)),
                    now,
                )
            except asyncpg.UniqueViolationError:
                raise Taken("client_name") from None
            client = _client(row)
            await audit.record(
                transaction,
                "client.added",
                by=by,
                now=now,
                target=("client", str(client.id)),
                grant_types=sorted(client.grant_types),
                scope=scopes.join(client.scope),
                audiences=list(client.audiences),
            )
        return client, secret

    async def page(self, *, after: str = "", limit: int = 100) -> Sequence[Client]:
        """Clients in the order of their names, from the one after `after`."""
        rows = await self._database.rows(
            "SELECT * FROM clients WHERE name > $1 ORDER BY name LIMIT $2", after.replace("\0", ""), limit
        )
        return [_client(row) for row in rows]

    async def locate(self, text: str) -> Client:
        """The client that a person means by an id or a name. Raises NotFound."""
        # An id first: a name may look like one.
        client_id = _uuid(text)
        row = None
        if client_id is not None:
            row = await self._database.row("SELECT * FROM clients WHERE id = $1", client_id)
        if row is None and re.fullmatch(NAME_PATTERN, text):
            row = await self._database.row("SELECT * FROM clients WHERE name = $1", text)
        if row is None:
            raise NotFound("no such client")
        return _client(row)

    async def remove(self, client_id: UUID, *, by: Actor) -> None:
        """Remove a client; from now on every verifier refuses what it was given. Raises NotFound."""
        async with self._database.transaction() as transaction:
            now = await read_time(transaction, self._database.clock)
            if not await transaction.rows("DELETE FROM clients WHERE id = $1 RETURNING id", client_id):
                raise NotFound("no such client")
            entries = await journal.revoke(transaction, "c", [str(client_id)], reason="removed", now=now)
            await audit.record(transaction, "client.removed", by=by, now=now, target=("client", str(client_id)))
        await self._announcer.announce_committed(entries)

    async def rotate_secret(self, client_id: UUID, *, by: Actor, overlap: timedelta = OVERLAP) -> tuple[Client, str]:
        """A new secret, told this once. The one that was current is good for `overlap` longer; any before it ends now.

        Raises NotFound, InvalidRequest.
        """
        if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
            most = int(LONGEST_OVERLAP.total_seconds())
            raise InvalidRequest("The overlap is out of range.", fields=(("overlap", f"must be from 0 to {most}"),))
        secret = _new_secret()
        async with self._database.transaction() as transaction:
            now = await read_time(transaction, self._database.clock)
            row = await transaction.row(
                "UPDATE clients SET secret_hash = $2,"
                " previous_secret_hash = CASE WHEN $3::timestamptz IS NULL THEN NULL ELSE secret_hash END,"
                " previous_secret_until = $3 WHERE id = $1 RETURNING *",
                client_id,
                _hash(secret),
                now + overlap if overlap else None,
            )
            if row is None:
                raise NotFound("no such client")
            await audit.record(
                transaction,
                "client.secret_rotated",
                by=by,
                now=now,
                target=("client", str(client_id)),
                overlap=int(overlap.total_seconds()),
            )
        return _client(row), secret

    async def authenticate(self, client_id: str, client_secret: str) -> AuthenticatedClient:
        """The client, read anew, if the secret is one of its own. Raises InvalidClient."""
        known_as = _uuid(client_id)
        row = None
        if known_as is not None:
            row = await self._database.row("SELECT *, clock_timestamp() AS now FROM clients WHERE id = $1", known_as)
        presented = _hash(client_secret)
        # Both, always: the time tells nothing of which one, if any, was right.
        is_current = hmac.compare_digest(presented, row["secret_hash"] if row else _NO_HASH)
        is_previous = hmac.compare_digest(presented, (row["previous_secret_hash"] if row else None) or _NO_HASH)
        if row is not None:
            now = self._database.clock.now(row["now"])
            until = row["previous_secret_until"]
            if is_current or (is_previous and until is not None and now < until):
                CLIENT_AUTHENTICATIONS.labels(outcome="success").inc()
                return AuthenticatedClient(_client(row), now)
        CLIENT_AUTHENTICATIONS.labels(outcome="refused").inc()
        raise InvalidClient("unknown, or a wrong secret")

    async def find(self, client_id: str) -> Client | None:
        """The client, as it is now."""
        known_as = _uuid(client_id)
        row = known_as and await self._database.row("SELECT * FROM clients WHERE id = $1", known_as)
        return _client(row) if row else None


def _is_audience(text: str) -> bool:
    # What a verifier takes for one, and can be stored in a list.
    return 0 < len(text) <= 255 and text.isprintable() and not any(map(str.isspace, text))


def _new_secret() -> str:
    return secrets.token_urlsafe(_SECRET_BYTES)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _uuid(text: str) -> UUID | None:
    """The id, if it is spelt as we write it: the journal and the tokens know it by this spelling alone."""
    try:
        found = UUID(text)
    except ValueError:
        return None
    return found if str(found) == text else None


def _client(row: Row) -> Client:
    return Client(
        id=row["id"],
        name=row["name"],
        grant_types=frozenset(row["grant_types"].split()),
        scope=scopes.split(row["scope"]),
        audiences=tuple(row["audiences"].split()),
        created_at=row["created_at"],
        previous_secret_until=row["previous_secret_until"],
    )
