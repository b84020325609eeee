"""`/user/me` and `/user/password`: the signed-in user's own account."""

from collections.abc import Iterable
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from auth_service.accounts.password_rules import PasswordRules
from auth_service.accounts.users import Users
from auth_service.endpoints import schemas
from auth_service.endpoints.account_names import given_names
from auth_service.endpoints.actor import user_actor
from auth_service.endpoints.bearer import Bearer, BearerAuthentication
from auth_service.endpoints.body import Body, judged_body, read_body
from auth_service.endpoints.json_response import json_response
from auth_service.endpoints.operation import Answer, Operation
from auth_service.errors import InvalidRequest

_Body = TypeVar("_Body", bound=Body)


class AccountEndpoints:
    """Reading and changing the account that bears the access token."""

    def __init__(self, *, users: Users, bearer: BearerAuthentication, password_rules: PasswordRules) -> None:
        self._users = users
        self._bearer = bearer
        self._password_rules = password_rules

    def operations(self) -> Iterable[Operation]:
        yield Operation(
            "GET",
            "/user/me",
            self.read,
            "Who am I",
            "Accounts",
            {200: Answer("The user.", schemas.User)},
            problems=(401,),
            credentials=("bearer",),
            anonymous=False,
            slash_too=True,
        )
        yield Operation(
            "PATCH",
            "/user/me",
            self.change,
            "Change one's user name or e-mail address",
            "Accounts",
            {200: Answer("The user as changed.", schemas.User)},
            problems=(401, 409, 429),
            body=schemas.AccountChange,
            credentials=("bearer",),
            anonymous=False,
            slash_too=True,
        )
        yield Operation(
            "POST",
            "/user/password",
            self.change_password,
            "Change one's password and end every other session",
            "Accounts",
            {204: Answer("The password is changed.")},
            problems=(401, 422, 429),
            body=schemas.PasswordChange,
            credentials=("bearer",),
            anonymous=False,
            slash_too=True,
        )

    async def read(self, request: Request) -> Response:
        bearer = await self._bearer.authenticate(request)
        return json_response(schemas.User.of(bearer.subject))

    async def change(self, request: Request) -> Response:
        bearer, body = await self._authenticated(request, schemas.AccountChange)
        username, email = given_names(body.username, body.email)
        by = user_actor(bearer.subject.id, request)
        verified_hash = None
        if email is not None:
            if body.current_password is None:
                raise InvalidRequest(
                    "A new e-mail address needs the current password.", fields=(("current_password", "is required"),)
                )
            verified_hash = await self._users.require_password(bearer.subject.id, body.current_password, by=by)
        changed = await self._users.rename(
            bearer.subject.id,
            username=username,
            email=email,
            verified_hash=verified_hash,
            by=by,
        )
        return json_response(schemas.User.of(changed))

    async def change_password(self, request: Request) -> Response:
        bearer, body = await self._authenticated(request, schemas.PasswordChange)
        await self._users.change_password(
            bearer.subject.id,
            current=body.current_password,
            new=body.new_password,
            judge=lambda: self._password_rules.require(
                body.new_password, username=bearer.subject.username, email=bearer.subject.email, field="new_password"
            ),
            keep_session=bearer.session.id,
            by=user_actor(bearer.subject.id, request),
        )
        return Response(status_code=204)

    async def _authenticated(self, request: Request, model: type[_Body]) -> tuple[Bearer, _Body]:
        # The body is read before its bearer is known, and judged after: a stranger learns nothing from it, and somebody
        # whose session ends while it is under way is a stranger.
        data = await read_body(request)
        bearer = await self._bearer.authenticate(request)
        return bearer, judged_body(request, data, model)
