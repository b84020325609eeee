"""Administrators, and the admin API as a test calls it."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx2

from auth_service.audit import OPERATOR
from tests.support.service import Service, SignedIn

SCOPE = "auth:admin"


@dataclass(slots=True)
class Admin:
    """An administrator's own session, and calls that bear its access token."""

    user: SignedIn
    service: Service

    async def call(self, method: str, path: str, **request: Any) -> httpx2.Response:
        """Request `path` below `/admin`."""
        return await self.service.internal.request(method, f"/admin{path}", headers=self.user.bearer, **request)

    async def pages(self, path: str, **params: Any) -> list[Any]:
        """All items of a list, read page by page."""
        items: list[Any] = []
        cursor: dict[str, str] = {}
        while True:
            answer = await self.call("GET", path, params={**params, **cursor})
            assert answer.status_code == 200, answer.text
            page = answer.json()
            items += page["items"]
            if page["next"] is None:
                return items
            assert page["items"], "a page that has a next one is not empty"
            assert page["next"] != cursor.get("cursor"), "and goes on"
            cursor = {"cursor": page["next"]}


async def administrator(service: Service, **members: Any) -> Admin:
    """A new user who is granted `auth:admin` and has asked for it."""
    user = await service.register(**members)
    await service.app.parts.users.grant(UUID(user.id), add=[SCOPE], by=OPERATOR)
    return Admin(await service.login(user, scope=f"profile {SCOPE}"), service)


async def service_token(service: Service, *, scope: str = SCOPE, held: str = SCOPE, **claims: Any) -> str:
    """An access token of a new client that holds the scopes `held`; `claims` win, None leaves one out."""
    client_id = uuid4()
    parts = service.app.parts
    now = await parts.database.now()
    await service.sql(
        "INSERT INTO clients (id, name, secret_hash, grant_types, scope, audiences, created_at)"
        " VALUES ($1, $2, $3, 'client_credentials', $4, '', $5)",
        client_id,
        f"client {client_id}",
        b"",
        held,
        now,
    )
    issuer = service.settings.issuer
    seconds = int(now.timestamp())
    made = {
        "iss": issuer, "aud": issuer, "sub": str(client_id), "client_id": str(client_id), "scope": scope,
        "jti": str(uuid4()), "iat": seconds, "exp": seconds + 600,
    } | claims  # fmt: skip
    return parts.keys.signing_key(now).sign({name: made[name] for name in made if made[name] is not None}, typ="at+jwt")


async def events(service: Service, action: str | None = None) -> list[Any]:
    """The audit events so far, the oldest first."""
    return await service.sql("SELECT * FROM audit_events WHERE $1::text IS NULL OR action = $1 ORDER BY id", action)
