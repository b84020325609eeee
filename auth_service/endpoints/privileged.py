"""Access by one of this service's own scopes: who shows a token with it, made for this service alone, and holds it now.

Only who asks for such a scope is given it (`tokens/scope.py`), so nobody's ordinary token opens anything here.
"""

from starlette.requests import Request

from auth_service.accounts.live_tokens import LiveAccessToken, LiveTokens
from auth_service.endpoints.authorization import presented_access_token
from auth_service.errors import InsufficientScope, InvalidBearer
from auth_service.verifier.errors import InvalidToken


class PrivilegedAccess:
    """Finds out whether the bearer of a request may use `scope`. Nothing is cached: PostgreSQL is asked each time."""

    def __init__(self, scope: str, *, issuer: str, live_tokens: LiveTokens) -> None:
        self._scope = scope
        self._issuer = issuer
        self._live_tokens = live_tokens

    async def require(self, request: Request) -> LiveAccessToken:
        """Raises InvalidBearer, InsufficientScope, UnreadableBearer, Unavailable."""
        access_token = presented_access_token(request)
        if access_token is None:
            raise InvalidBearer("no credentials", presented=False)
        try:
            live = await self._live_tokens.access_token(access_token)
        except InvalidToken as exc:
            raise InvalidBearer(str(exc)) from None
        if self._issuer not in live.claims.audience:
            raise InvalidBearer("the token is for others")
        if self._scope not in live.claims.scope:
            # An ordinary token, which is for others too: there is nothing wrong with it (RFC 6750 §3.1).
            raise InsufficientScope(self._scope, "it was not asked for")
        if live.claims.audience != (self._issuer,):
            raise InvalidBearer("the token is for others too")
        if self._scope not in live.held_scopes:
            raise InsufficientScope(self._scope, "it was taken away")
        return live
