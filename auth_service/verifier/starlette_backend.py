"""For applications that already use Starlette's `AuthenticationMiddleware`: the backend, and its answer to a bad token.

It ends no open WebSocket or event stream, and does not answer the subprotocol `bearer`; `BearerMiddleware` does both.
"""

from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    AuthenticationError,
    BaseUser,
    UnauthenticatedUser,
)
from starlette.requests import HTTPConnection
from starlette.responses import Response

from auth_service.verifier.challenge import challenge
from auth_service.verifier.credentials import presented_access_token
from auth_service.verifier.errors import VerifierError
from auth_service.verifier.identity import AnonymousCredentials, identity
from auth_service.verifier.verifier import Verifier


class RefusedToken(AuthenticationError):
    """Wraps the VerifierError that Starlette's middleware would not recognise: `__cause__`, which alone says why."""


class JWTAuthenticationBackend(AuthenticationBackend):
    """Use as `Middleware(AuthenticationMiddleware, backend=backend, on_error=backend.on_error)`.

    Without `on_error` Starlette answers a bad token with a bare 400.
    """

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser]:
        """Raises RefusedToken."""
        try:
            access_token = presented_access_token(conn.scope)
            if access_token is None:
                return AnonymousCredentials(self._verifier), UnauthenticatedUser()
            verified = await self._verifier.authenticate(access_token)
        except VerifierError as exc:
            raise RefusedToken(challenge(exc, realm=self._verifier.realm).description) from exc
        user, credentials = identity(self._verifier, verified)
        return credentials, user

    def on_error(self, _conn: HTTPConnection, exc: AuthenticationError) -> Response:
        """The answer to a refused token (RFC 6750 §3)."""
        refusal = exc.__cause__
        assert isinstance(refusal, VerifierError), "not raised by this backend"
        return challenge(refusal, realm=self._verifier.realm).response()
