"""`/admin/users`: accounts, as an administrator keeps them. Their sessions are `sessions.py`'s."""

from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response

from auth_service.accounts.account import Change
from auth_service.accounts.password_rules import PasswordRules
from auth_service.accounts.passwords import PasswordHasher
from auth_service.accounts.users import Users
from auth_service.endpoints.account_names import given_names, required_names
from auth_service.endpoints.body import parse_body
from auth_service.endpoints.internal import path_ids, schemas
from auth_service.endpoints.internal.administrator import SCOPE, AdminAuthentication, admin_operation
from auth_service.endpoints.internal.paging import Cursors, Page, page_of
from auth_service.endpoints.internal.path_ids import path_id
from auth_service.endpoints.json_response import json_response
from auth_service.endpoints.operation import Answer, Operation
from auth_service.endpoints.query import parse_query
from auth_service.errors import OwnAccount

_CURSORS = Cursors("users", str)


class UserAdministration:
    """Listing, adding, changing and deleting accounts."""

    def __init__(
        self, *, users: Users, passwords: PasswordHasher, password_rules: PasswordRules, admin: AdminAuthentication
    ) -> None:
        self._users = users
        self._passwords = passwords
        self._admin = admin
        self._password_rules = password_rules

    def operations(self) -> Iterable[Operation]:
        yield admin_operation(
            "GET",
            "/admin/users",
            self.list_users,
            "List accounts by user name",
            "Users",
            {200: Answer("A page of accounts.", Page[schemas.User])},
            query=schemas.UserQuery,
        )
        yield admin_operation(
            "POST",
            "/admin/users",
            self.add,
            "Add an account",
            "Users",
            {201: Answer("The account.", schemas.User)},
            problems=(409, 422),
            body=schemas.NewUser,
        )
        yield admin_operation(
            "GET",
            "/admin/users/{id}",
            self.read,
            "Read an account",
            "Users",
            {200: Answer("The account.", schemas.User)},
            problems=(404,),
            path_parameters=path_ids.DESCRIBED,
        )
        yield admin_operation(
            "PATCH",
            "/admin/users/{id}",
            self.change,
            "Change an account",
            "Users",
            {200: Answer("The account as changed.", schemas.User)},
            problems=(404, 409, 422),
            body=schemas.UserChange,
            path_parameters=path_ids.DESCRIBED,
        )
        yield admin_operation(
            "DELETE",
            "/admin/users/{id}",
            self.delete,
            "Delete an account and end its sessions",
            "Users",
            {204: Answer("It is gone.")},
            problems=(404, 409),
            path_parameters=path_ids.DESCRIBED,
        )

    async def list_users(self, request: Request) -> Response:
        await self._admin.authenticate(request)
        query = parse_query(request, schemas.UserQuery)
        [after] = _CURSORS.read(query.cursor) or ("",)
        found = await self._users.page(search=query.search, after=after, limit=query.limit + 1)
        return page_of(
            found, query.limit, item=schemas.User.of, cursor=lambda account: _CURSORS.write(account.username)
        )

    async def add(self, request: Request) -> Response:
        admin = await self._admin.authenticate(request)
        body = await parse_body(request, schemas.NewUser)
        username, email = required_names(body.username, body.email)
        await self._password_rules.require(body.password, username=username.text, email=email.text)
        account = await self._users.add(
            username=username,
            email=email,
            password=body.password,
            granted_scopes=body.granted_scopes,
            by=admin.actor,
        )
        response = json_response(schemas.User.of(account), status=201, whole=True)
        response.headers["Location"] = f"/admin/users/{account.id}"
        return response

    async def read(self, request: Request) -> Response:
        await self._admin.authenticate(request)
        return json_response(schemas.User.of(await self._users.get(path_id(request))), whole=True)

    async def change(self, request: Request) -> Response:
        admin = await self._admin.authenticate(request)
        body = await parse_body(request, schemas.UserChange)
        account = await self._users.get(path_id(request))
        username, email = given_names(body.username, body.email)
        granted_scopes = None if body.granted_scopes is None else frozenset(body.granted_scopes)
        if account.id == admin.user_id and (
            body.disabled or (granted_scopes is not None and SCOPE not in granted_scopes)
        ):
            raise OwnAccount()
        password_hash = None
        if body.password is not None:
            await self._password_rules.require(
                body.password,
                username=username.text if username else account.username,
                email=email.text if email else account.email,
            )
            password_hash = await self._passwords.hash(body.password)
        change = Change(username, email, password_hash, body.disabled, granted_scopes)
        changed = await self._users.change(account.id, change, by=admin.actor)
        return json_response(schemas.User.of(changed), whole=True)

    async def delete(self, request: Request) -> Response:
        admin = await self._admin.authenticate(request)
        user_id = path_id(request)
        if user_id == admin.user_id:
            raise OwnAccount()
        await self._users.delete(user_id, by=admin.actor)
        return Response(status_code=204)
