"""The administrator behind a request of the admin API: a user or a service with `auth:admin`, in the token and now."""

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

from starlette.requests import Request

from auth_service.accounts.live_tokens import LiveTokens
from auth_service.audit import Actor
from auth_service.endpoints.actor import source_of, user_actor
from auth_service.endpoints.operation import Operation
from auth_service.endpoints.privileged import PrivilegedAccess

SCOPE = "auth:admin"

admin_operation = partial(Operation, credentials=("admin_bearer",), anonymous=False)
"""An operation of the admin API. Its handler must ask `AdminAuthentication` before anything else."""


@dataclass(frozen=True, slots=True)
class Administrator:
    """Who may administer. `user_id` is None for a service."""

    actor: Actor
    user_id: UUID | None
    now: datetime


class AdminAuthentication:
    """Finds out which administrator bears an access token."""

    def __init__(self, *, issuer: str, live_tokens: LiveTokens) -> None:
        self._access = PrivilegedAccess(SCOPE, issuer=issuer, live_tokens=live_tokens)

    async def authenticate(self, request: Request) -> Administrator:
        """Raises InvalidBearer, InsufficientScope, UnreadableBearer, Unavailable."""
        live = await self._access.require(request)
        if live.subject is None:
            return Administrator(Actor("client", live.claims.client_id, source_of(request)), None, live.now)
        return Administrator(user_actor(live.subject.id, request), live.subject.id, live.now)
