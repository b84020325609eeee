"""`/user/register` and `/user/login`: each opens a session and answers with its tokens."""

from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response

from auth_service.accounts import names
from auth_service.accounts.names import NameRefused
from auth_service.accounts.sign_in import SignIn
from auth_service.edge.origins import Origins
from auth_service.endpoints import refresh_cookie, schemas
from auth_service.endpoints.body import parse_body
from auth_service.endpoints.json_response import json_response
from auth_service.endpoints.operation import Answer, Operation
from auth_service.endpoints.presented import PresentedSessions
from auth_service.errors import InvalidRequest
from auth_service.sessions.ending import SessionEnding
from auth_service.sessions.issuing import IssuedTokens
from auth_service.sessions.session import Client, Transport

_USER_AGENT_LENGTH = 256


class SignInEndpoints:
    """Register and login, over the body or the cookie transport."""

    def __init__(
        self, *, sign_in: SignIn, ending: SessionEnding, presented: PresentedSessions, origins: Origins
    ) -> None:
        self._sign_in = sign_in
        self._ending = ending
        self._presented = presented
        self._origins = origins

    def operations(self) -> Iterable[Operation]:
        tokens = Answer("Tokens of a new session.", schemas.TokenResponse)
        yield Operation(
            "POST",
            "/user/register",
            self.register,
            "Make an account and sign in",
            "Accounts",
            {201: tokens},
            problems=(403, 409, 422),
            body=schemas.Registration,
            slash_too=True,
        )
        yield Operation(
            "POST",
            "/user/login",
            self.login,
            "Sign in with a password",
            "Sessions",
            {200: tokens},
            problems=(401, 403),
            body=schemas.Login,
            slash_too=True,
        )

    async def register(self, request: Request) -> Response:
        body = await parse_body(request, schemas.Registration)
        self._require_origin(request, body.transport)
        username, email = _names(body)
        tokens = await self._sign_in.register(
            username=username,
            email=email,
            password=body.password,
            transport=body.transport,
            scope=body.scope,
            client=_client(request),
        )
        return await self._respond(request, tokens, status=201)

    async def login(self, request: Request) -> Response:
        body = await parse_body(request, schemas.Login)
        self._require_origin(request, body.transport)
        tokens = await self._sign_in.login(
            username=body.username,
            email=body.email,
            password=body.password,
            transport=body.transport,
            scope=body.scope,
            client=_client(request),
        )
        return await self._respond(request, tokens, status=200)

    def _require_origin(self, request: Request, transport: Transport) -> None:
        # Login too: a page that signs its visitor in as somebody else reads what they then type (login CSRF).
        if transport == "cookie" or refresh_cookie.presented(request) is not None:
            refusal = self._origins.cookie_refusal(request.headers)
            if refusal is not None:
                raise refusal

    async def _respond(self, request: Request, tokens: IssuedTokens, *, status: int) -> Response:
        if tokens.transport == "cookie":
            # The new cookie replaces this one in the browser: nobody could ever end its session there.
            replaced = self._presented.named_by(refresh_tokens=(refresh_cookie.presented(request),))
            await self._ending.end(replaced, reason="replaced")
        response = json_response(schemas.TokenResponse.of(tokens), status=status)
        refresh_cookie.attach(response, tokens)
        return response


def _names(body: schemas.Registration) -> tuple[names.Name, names.Name]:
    wrong = []
    for field, check, text in (("username", names.username, body.username), ("email", names.email, body.email)):
        try:
            check(text)
        except NameRefused as exc:
            wrong.append((field, str(exc)))
    if wrong:
        raise InvalidRequest(f"These fields are wrong: {', '.join(field for field, _ in wrong)}.", fields=tuple(wrong))
    return names.username(body.username), names.email(body.email)


def _client(request: Request) -> Client:
    user_agent = request.headers.get("user-agent", "")
    printable = "".join(character for character in user_agent if character.isprintable())
    return Client(request.state.client_address, printable[:_USER_AGENT_LENGTH] or None)
