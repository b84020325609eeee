"""Who may open the revocation feed where it is not public: a client whose token says `revocations:read`.

Checked when the feed is opened; one that is open stays so, since its reader would only open it again.
"""

from datetime import UTC, datetime

from starlette.requests import Request

from auth_service.accounts.live_tokens import LiveTokens
from auth_service.endpoints.authorization import presented_access_token
from auth_service.endpoints.privileged import PrivilegedAccess
from auth_service.errors import InvalidBearer, Unavailable
from auth_service.keys.key_ring import KeyRing
from auth_service.revocation.live_set import LiveSet
from auth_service.stores.clock import Clock
from auth_service.tokens.access_token import SignedPayload
from auth_service.verifier.claims import MAX_LEEWAY, AccessTokenClaims
from auth_service.verifier.errors import InvalidToken
from auth_service.verifier.revocations import Kind

SCOPE = "revocations:read"


class FeedAccess:
    """Asks PostgreSQL, and its own memory while PostgreSQL is away: verifiers must be able to come back even then."""

    def __init__(self, *, issuer: str, live_tokens: LiveTokens, keys: KeyRing, live_set: LiveSet, clock: Clock) -> None:
        self._access = PrivilegedAccess(SCOPE, issuer=issuer, live_tokens=live_tokens)
        self._issuer = issuer
        self._keys = keys
        self._live_set = live_set
        self._clock = clock

    async def require(self, request: Request) -> None:
        """Raises InvalidBearer, InsufficientScope, UnreadableBearer; Unavailable where neither can tell."""
        try:
            live = await self._access.require(request)
        except Unavailable:
            if not await self._is_known_good(presented_access_token(request) or ""):
                raise
            return
        if live.client is None:
            raise InvalidBearer("a user's token, not a client's")

    async def _is_known_good(self, access_token: str) -> bool:
        """Whether everything but the client itself can be seen to be right. Only PostgreSQL's clock says what time it
        is, and it is away: ours has to do, with a leeway."""
        now = self._clock.now(datetime.now(UTC)).timestamp()
        try:
            signed = await SignedPayload.parse(access_token, keys=self._keys)
            claims = AccessTokenClaims.parse(
                signed.claims, issuer=self._issuer, audience=(self._issuer,), now=now, leeway=MAX_LEEWAY
            )
        except InvalidToken:
            return False
        own = claims.audience == (self._issuer,) and claims.session_id is None and SCOPE in claims.scope
        names: tuple[tuple[Kind, str], ...] = (("j", claims.token_id), ("c", claims.client_id), ("k", signed.kid))
        return own and not any(self._live_set.holds(kind, claim) for kind, claim in names)
