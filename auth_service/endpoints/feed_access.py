"""Who may open the feed where it is not public: a client whose token says `revocations:read`, to this service alone."""

from starlette.requests import Request

from auth_service.accounts.live_tokens import LiveTokens
from auth_service.endpoints.bearer import presented_access_token
from auth_service.errors import InsufficientScope, InvalidBearer
from auth_service.verifier.errors import InvalidToken

SCOPE = "revocations:read"


class FeedAccess:
    """Checked when the feed is opened. One that is open stays so: its reader would only open it again."""

    def __init__(self, *, issuer: str, live_tokens: LiveTokens) -> None:
        self._issuer = issuer
        self._live_tokens = live_tokens

    async def require(self, request: Request) -> None:
        """Raises InvalidBearer, InsufficientScope, InvalidRequest, Unavailable."""
        access_token = presented_access_token(request)
        if access_token is None:
            raise InvalidBearer("no credentials", presented=False)
        try:
            claims = (await self._live_tokens.access_token(access_token)).claims
        except InvalidToken as exc:
            raise InvalidBearer(str(exc)) from None
        if claims.audience != (self._issuer,):
            raise InvalidBearer("not for this service alone")
        if claims.session_id is not None:
            raise InvalidBearer("a user's token, not a client's")
        if SCOPE not in claims.scope:
            raise InsufficientScope(SCOPE)
