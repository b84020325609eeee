"""`/oauth/*`: token (RFC 6749), revoke (RFC 7009) and introspect (RFC 7662), for clients of any make."""

from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response

from auth_service.accounts.client_grant import ClientCredentialsGrant
from auth_service.accounts.introspection import Introspection
from auth_service.accounts.token_revocation import TokenRevocation
from auth_service.audit import Source
from auth_service.endpoints import oauth_schemas as schemas
from auth_service.endpoints.actor import source_of
from auth_service.endpoints.client_authentication import ClientAuthentication, ClientForm
from auth_service.endpoints.form import MEDIA_TYPE, parse_form
from auth_service.endpoints.json_response import json_response, token_response
from auth_service.endpoints.oauth_errors import oauth_errors
from auth_service.endpoints.operation import Answer, Handler, Operation
from auth_service.errors import GrantRefused, InvalidRequest
from auth_service.sessions.issuing import IssuedTokens, Narrowing
from auth_service.sessions.refresh import RefreshProtocol
from auth_service.tokens import scope as scopes

TOKEN_PATH = "/oauth/token"  # noqa: S105
REVOCATION_PATH = "/oauth/revoke"
INTROSPECTION_PATH = "/oauth/introspect"
GRANT_TYPES = ("client_credentials", "refresh_token")

_UNCACHED = (("Cache-Control", "`no-store`."),)
_UNCACHED_ANYWHERE = (*_UNCACHED, ("Pragma", "`no-cache`, for caches that only know that (RFC 6749 §5.1)."))


class OAuthEndpoints:
    """Tokens for services, and the standard questions about any token."""

    def __init__(
        self,
        *,
        authentication: ClientAuthentication,
        grant: ClientCredentialsGrant,
        refresh: RefreshProtocol,
        revocation: TokenRevocation,
        introspection: Introspection,
    ) -> None:
        self._authentication = authentication
        self._grant = grant
        self._refresh = refresh
        self._revocation = revocation
        self._introspection = introspection

    def operations(self) -> Iterable[Operation]:
        def operation(path: str, handler: Handler, summary: str, answer: Answer, body: type[ClientForm]) -> Operation:
            return Operation(
                "POST",
                path,
                oauth_errors(handler),
                summary,
                "OAuth",
                {200: answer},
                problems=(401,),
                body=body,
                body_media_type=MEDIA_TYPE,
                oauth_errors=True,
                credentials=("client",),
                anonymous=path != INTROSPECTION_PATH,
            )

        token = Answer("The token, or tokens.", schemas.OAuthTokenResponse, headers=_UNCACHED_ANYWHERE)
        revoked = Answer("It is revoked, or was not this client's to revoke.")
        found = Answer("What it says, where it is live.", schemas.IntrospectionResponse, headers=_UNCACHED)
        yield operation(TOKEN_PATH, self.token, "Get a token", token, schemas.TokenRequest)
        yield operation(REVOCATION_PATH, self.revoke, "Revoke a token", revoked, schemas.RevocationRequest)
        yield operation(INTROSPECTION_PATH, self.introspect, "Look at a token", found, schemas.IntrospectionRequest)

    async def token(self, request: Request) -> Response:
        form = await parse_form(request, schemas.TokenRequest)
        authenticated = await self._authentication.any(request, form)
        match form.grant_type:
            case "client_credentials":
                if authenticated is None:
                    raise GrantRefused("unauthorized_client", "The public client has no tokens of its own.")
                issued = self._grant.issue(authenticated, scope=form.scope, audiences=(*form.audience, *form.resource))
                return token_response(schemas.OAuthTokenResponse.of(issued))
            case "refresh_token":
                if authenticated is not None:
                    raise GrantRefused("unauthorized_client", "This client may not use this grant.")
                return token_response(schemas.OAuthTokenResponse.of(await self._refreshed(form, source_of(request))))
            case _:
                known = " and ".join(GRANT_TYPES)
                raise GrantRefused("unsupported_grant_type", f"The grants of this service are {known}.")

    async def revoke(self, request: Request) -> Response:
        form = await parse_form(request, schemas.RevocationRequest)
        authenticated = await self._authentication.any(request, form)
        client_id = str(authenticated.client.id) if authenticated else self._authentication.public_client_id
        await self._revocation.revoke(form.token, client_id=client_id, source=source_of(request))
        return Response(status_code=200)

    async def introspect(self, request: Request) -> Response:
        form = await parse_form(request, schemas.IntrospectionRequest)
        caller = await self._authentication.confidential(request, form)
        found = await self._introspection.introspect(form.token, caller=caller)
        return json_response(schemas.IntrospectionResponse.of(found))

    async def _refreshed(self, form: schemas.TokenRequest, source: Source) -> IssuedTokens:
        if form.refresh_token is None:
            raise InvalidRequest("The body lacks a parameter.", fields=(("refresh_token", "is required"),))
        return await self._refresh.refresh(
            form.refresh_token,
            source=source,
            client_id=self._authentication.public_client_id,
            narrowing=Narrowing(
                scope=None if form.scope is None else scopes.split(form.scope),
                audiences=(*form.audience, *form.resource),
            ),
            cookie_refusal=GrantRefused(
                "invalid_grant", "The refresh token of this session is in a cookie: use /user/refresh-token."
            ),
        )
