"""`/user/register` and `/user/login`: each opens a session and answers with its tokens."""

from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response

from auth_service.accounts.sign_in import SignIn
from auth_service.edge.origins import Origins
from auth_service.endpoints import refresh_cookie, schemas
from auth_service.endpoints.account_names import required_names
from auth_service.endpoints.actor import source_of
from auth_service.endpoints.body import parse_body
from auth_service.endpoints.json_response import token_response
from auth_service.endpoints.operation import Answer, Operation
from auth_service.endpoints.presented import PresentedSessions
from auth_service.sessions.issuing import IssuedTokens
from auth_service.sessions.session import Opening


class SignInEndpoints:
    """Register and login, over the body or the cookie transport."""

    def __init__(self, *, sign_in: SignIn, presented: PresentedSessions, origins: Origins) -> None:
        self._sign_in = sign_in
        self._presented = presented
        self._origins = origins

    def operations(self) -> Iterable[Operation]:
        tokens = Answer("Tokens of a new session.", schemas.TokenResponse, headers=refresh_cookie.DESCRIBED)
        yield Operation(
            "POST",
            "/user/register",
            self.register,
            "Make an account and sign in",
            "Accounts",
            {201: tokens},
            problems=(403, 409, 422, 429),
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
            problems=(401, 403, 429),
            body=schemas.Login,
            slash_too=True,
        )

    async def register(self, request: Request) -> Response:
        body = await parse_body(request, schemas.Registration)
        username, email = required_names(body.username, body.email)
        tokens = await self._sign_in.register(
            username=username, email=email, password=body.password, opening=await self._opening(request, body)
        )
        return _respond(tokens, status=201)

    async def login(self, request: Request) -> Response:
        body = await parse_body(request, schemas.Login)
        tokens = await self._sign_in.login(
            username=body.username, email=body.email, password=body.password, opening=await self._opening(request, body)
        )
        return _respond(tokens, status=200)

    async def _opening(self, request: Request, body: schemas.Registration | schemas.Login) -> Opening:
        """How the session is opened. Raises OriginRefused, Unavailable."""
        cookie = refresh_cookie.presented(request)
        # Login too: a page that signs its visitor in as somebody else reads what they then type (login CSRF).
        if body.transport == "cookie" or cookie is not None:
            refusal = self._origins.cookie_refusal(request.headers)
            if refusal is not None:
                raise refusal
        # The new cookie replaces the one that came along: nobody could ever end that one's session there.
        replaces = await self._presented.named_by(refresh_tokens=(cookie,)) if body.transport == "cookie" else []
        return Opening(body.transport, body.scope, source_of(request), tuple(replaces))


def _respond(tokens: IssuedTokens, *, status: int) -> Response:
    response = token_response(schemas.TokenResponse.of(tokens), status=status)
    refresh_cookie.attach(response, tokens)
    return response
