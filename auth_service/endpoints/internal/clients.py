"""`/admin/clients`: the service clients and their secrets, as an administrator keeps them."""

from collections.abc import Iterable
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response

from auth_service.accounts.clients import Clients, Registration
from auth_service.endpoints.body import parse_body
from auth_service.endpoints.internal import path_ids, schemas
from auth_service.endpoints.internal.administrator import AdminAuthentication, admin_operation
from auth_service.endpoints.internal.paging import Cursors, Page, PageQuery, page_of
from auth_service.endpoints.internal.path_ids import path_id
from auth_service.endpoints.json_response import json_response
from auth_service.endpoints.operation import Answer, Operation
from auth_service.endpoints.query import parse_query
from auth_service.tokens import scope as scopes

_CURSORS = Cursors("clients", str)


class ClientAdministration:
    """Listing, adding and removing clients, and rotating their secrets."""

    def __init__(self, *, clients: Clients, admin: AdminAuthentication) -> None:
        self._clients = clients
        self._admin = admin

    def operations(self) -> Iterable[Operation]:
        yield admin_operation(
            "GET",
            "/admin/clients",
            self.list_clients,
            "List clients by name",
            "Clients",
            {200: Answer("A page of clients.", Page[schemas.Client])},
            query=PageQuery,
        )
        yield admin_operation(
            "POST",
            "/admin/clients",
            self.add,
            "Add a client",
            "Clients",
            {201: Answer("The client, with its secret: it is told this once.", schemas.ClientWithSecret)},
            problems=(409,),
            body=schemas.NewClient,
        )
        yield admin_operation(
            "POST",
            "/admin/clients/{id}/secret",
            self.rotate_secret,
            "Give a client a new secret",
            "Clients",
            {200: Answer("The client, with its new secret: it is told this once.", schemas.ClientWithSecret)},
            problems=(404,),
            body=schemas.SecretRotation,
            body_required=False,
            path_parameters=path_ids.DESCRIBED,
        )
        yield admin_operation(
            "DELETE",
            "/admin/clients/{id}",
            self.remove,
            "Remove a client; its tokens are refused everywhere",
            "Clients",
            {204: Answer("It is gone.")},
            problems=(404,),
            path_parameters=path_ids.DESCRIBED,
        )

    async def list_clients(self, request: Request) -> Response:
        await self._admin.authenticate(request)
        query = parse_query(request, PageQuery)
        [after] = _CURSORS.read(query.cursor) or ("",)
        found = await self._clients.page(after=after, limit=query.limit + 1)
        return page_of(found, query.limit, item=schemas.Client.of, cursor=lambda client: _CURSORS.write(client.name))

    async def add(self, request: Request) -> Response:
        admin = await self._admin.authenticate(request)
        body = await parse_body(request, schemas.NewClient)
        registration = Registration(
            name=body.client_name,
            grant_types=tuple(body.grant_types),
            scope=scopes.split(body.scope),
            audiences=tuple(body.audiences),
        )
        client, secret = await self._clients.add(registration, by=admin.actor)
        return json_response(schemas.ClientWithSecret.of_new(client, secret), status=201, whole=True)

    async def rotate_secret(self, request: Request) -> Response:
        admin = await self._admin.authenticate(request)
        body = await parse_body(request, schemas.SecretRotation, optional=True)
        client, secret = await self._clients.rotate_secret(
            path_id(request), by=admin.actor, overlap=timedelta(seconds=body.overlap)
        )
        return json_response(schemas.ClientWithSecret.of_new(client, secret), whole=True)

    async def remove(self, request: Request) -> Response:
        admin = await self._admin.authenticate(request)
        await self._clients.remove(path_id(request), by=admin.actor)
        return Response(status_code=204)
