"""The administrator behind a request of the admin API: a user or a service with `auth:admin`, in the token and now.

The credential is an access token whose `aud` is this issuer alone. Only who asks for the scope is given such a token
(`tokens/scope.py`), so an administrator's ordinary token opens nothing here.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from starlette.requests import Request

from auth_service.accounts.client_standing import client_standing
from auth_service.audit import Actor
from auth_service.endpoints.actor import source_of, user_actor
from auth_service.endpoints.bearer import BearerAuthentication, presented_access_token, signed_payload
from auth_service.errors import InsufficientScope, InvalidBearer
from auth_service.keys.key_ring import KeyRing
from auth_service.stores.database import Database
from auth_service.verifier.claims import AccessTokenClaims
from auth_service.verifier.errors import InvalidToken

SCOPE = "auth:admin"


@dataclass(frozen=True, slots=True)
class Administrator:
    """Who may administer. `user_id` is None for a service."""

    actor: Actor
    user_id: UUID | None
    now: datetime


class AdminAuthentication:
    """Finds out which administrator bears an access token. Nothing is cached: PostgreSQL is asked each time."""

    def __init__(self, *, issuer: str, keys: KeyRing, bearer: BearerAuthentication, database: Database) -> None:
        self._issuer = issuer
        self._keys = keys
        self._bearer = bearer
        self._database = database

    async def authenticate(self, request: Request) -> Administrator:
        """Raises InvalidBearer, InsufficientScope, InvalidRequest, Unavailable."""
        access_token = presented_access_token(request)
        if access_token is None:
            raise InvalidBearer("no credentials", presented=False)
        try:
            payload = signed_payload(access_token, keys=self._keys)
            if "sid" not in payload:
                return await self._service(payload, request)
        except InvalidToken as exc:
            raise InvalidBearer(str(exc)) from None
        bearer = await self._bearer.authenticate(request)
        self._require_scope(bearer.claims, bearer.subject.held_scopes)
        return Administrator(user_actor(bearer.subject.id, request), bearer.subject.id, bearer.now)

    async def _service(self, payload: dict[str, object], request: Request) -> Administrator:
        """A service token: `sub` is its client, and there is no session. Raises InvalidToken besides."""
        client_id, token_id = payload.get("client_id"), payload.get("jti")
        try:
            found = UUID(client_id if isinstance(client_id, str) else "")
        except ValueError:
            raise InvalidBearer("the client is none of ours") from None
        standing = await client_standing(self._database, found, token_id=str(token_id))
        claims = AccessTokenClaims.parse(
            payload, issuer=self._issuer, audience=(self._issuer,), now=standing.now.timestamp()
        )
        if standing.held_scopes is None:
            raise InvalidBearer("the client is gone, or the token revoked")
        if claims.subject != claims.client_id or str(found) != claims.client_id:
            raise InvalidBearer("the token is not the client's own")
        self._require_scope(claims, standing.held_scopes)
        return Administrator(Actor("client", claims.client_id, source_of(request)), None, standing.now)

    def _require_scope(self, claims: AccessTokenClaims, held: frozenset[str]) -> None:
        if claims.audience != (self._issuer,):
            raise InvalidBearer("the token is for others too")
        if SCOPE not in claims.scope:
            raise InsufficientScope(SCOPE, "it was not asked for")
        if SCOPE not in held:
            raise InsufficientScope(SCOPE, "it was taken away")
