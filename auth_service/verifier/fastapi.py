"""FastAPI: the bearer of a request as a dependency, with scopes, and described in the OpenAPI document.

`BearerMiddleware` may be in front or not. Where there are WebSockets or event streams it belongs there: it ends them
with their token, and answers a browser's subprotocol `bearer`.
"""

from fastapi import HTTPException, WebSocketException
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from auth_service.verifier.challenge import Challenge, can_only_close, challenge
from auth_service.verifier.credentials import presented_access_token
from auth_service.verifier.errors import MissingCredentials, VerifierError
from auth_service.verifier.identity import BearerCredentials, JWTUser, identity
from auth_service.verifier.requires import authorized
from auth_service.verifier.verifier import Verifier, checked_staleness


class Bearer(SecurityBase):
    """A dependency that answers the `JWTUser` of a request, or refuses it as in RFC 6750.

        bearer = Bearer(verifier)
        Orders = Annotated[JWTUser, Security(bearer, scopes=["orders:read"])]

    `Depends(bearer)` demands a good token and no scope. `max_staleness` as in `requires`.
    """

    def __init__(self, verifier: Verifier, *, max_staleness: float | None = None) -> None:
        self._verifier = verifier
        self._max_staleness = checked_staleness(max_staleness)
        self.model = HTTPBearerModel(bearerFormat="JWT", description=f"An access token of {verifier.issuer}")
        self.scheme_name = "Bearer"

    async def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> JWTUser:
        try:
            found = connection.scope.get("auth")
            # What another verifier found good may be meant for another audience.
            if not isinstance(found, BearerCredentials) or found.verifier is not self._verifier:
                access_token = presented_access_token(connection.scope)
                if access_token is None:
                    raise MissingCredentials("no access token")
                verified = await self._verifier.authenticate(access_token)
                connection.scope["user"], connection.scope["auth"] = identity(self._verifier, verified)
            authorized(connection, security_scopes.scopes, max_staleness=self._max_staleness)
        except VerifierError as refusal:
            raise _exception(challenge(refusal, realm=self._verifier.realm), connection) from refusal
        user: JWTUser = connection.scope["user"]
        return user


def _exception(refused: Challenge, connection: HTTPConnection) -> Exception:
    if can_only_close(connection.scope):
        return WebSocketException(refused.close_code, refused.description)
    return HTTPException(refused.status, refused.description, refused.headers)
