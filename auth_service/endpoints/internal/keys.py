"""`/admin/keys`: the signing keys, as an administrator sees, rotates and revokes them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from auth_service.endpoints.internal import schemas
from auth_service.endpoints.internal.administrator import AdminAuthentication, admin_operation
from auth_service.endpoints.internal.paging import Page, page_of
from auth_service.endpoints.json_response import json_response
from auth_service.endpoints.operation import Answer, Operation
from auth_service.endpoints.query import refuse_query
from auth_service.errors import Unavailable
from auth_service.keys.encryption import WrongEncryptionKey
from auth_service.keys.life_cycle import KeyLifeCycle
from auth_service.revocation.key_revocation import KeyRevocation


class KeyAdministration:
    """Listing, rotating and revoking keys. Rewrapping them is the command line's: it needs both encryption keys."""

    def __init__(self, *, life_cycle: KeyLifeCycle, revocation: KeyRevocation, admin: AdminAuthentication) -> None:
        self._life_cycle = life_cycle
        self._revocation = revocation
        self._admin = admin

    def operations(self) -> Iterable[Operation]:
        yield admin_operation(
            "GET",
            "/admin/keys",
            self.list_keys,
            "List the signing keys, the oldest first",
            "Keys",
            {200: Answer("All of them.", Page[schemas.Key])},
        )
        yield admin_operation(
            "POST",
            "/admin/keys/rotate",
            self.rotate,
            "Have the standby sign as soon as every verifier knows it",
            "Keys",
            {200: Answer("Which key signs next, and from when.", schemas.KeySwitch)},
        )
        yield admin_operation(
            "DELETE",
            "/admin/keys/{kid}",
            self.revoke,
            "Revoke a key: whatever it signed is refused everywhere, and another signs",
            "Keys",
            {204: Answer("It is revoked, or had been before.")},
            problems=(404,),
            path_parameters={"kid": {"type": "string"}},
        )

    async def list_keys(self, request: Request) -> Response:
        await self._admin.authenticate(request)
        refuse_query(request)
        now, lives = await self._life_cycle.list()
        return page_of(lives, len(lives), item=partial(schemas.Key.of, now=now), cursor=lambda life: life.kid)

    async def rotate(self, request: Request) -> Response:
        admin = await self._admin.authenticate(request)
        with _readable():
            switch = await self._life_cycle.rotate(by=admin.actor)
        return json_response(schemas.KeySwitch(kid=switch.kid, signs_from=switch.signs_from))

    async def revoke(self, request: Request) -> Response:
        admin = await self._admin.authenticate(request)
        with _readable():
            await self._revocation.revoke(request.path_params["kid"], by=admin.actor)
        return Response(status_code=204)


@contextmanager
def _readable() -> Iterator[None]:
    """A key that this process cannot decrypt is for an operator to mend, and no fault of who asks."""
    try:
        yield
    except WrongEncryptionKey as exc:
        raise Unavailable(str(exc)) from None
