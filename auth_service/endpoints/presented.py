"""The sessions that a request's credentials name, whether or not those have expired: what a logout ends."""

from uuid import UUID

from auth_service.keys.key_ring import KeyRing
from auth_service.tokens.access_token import SignedPayload
from auth_service.tokens.refresh_token import RefreshToken
from auth_service.verifier.errors import InvalidToken


class PresentedSessions:
    """Reads a session's id out of a token of ours: signature, issuer and type must be good, the time need not be."""

    def __init__(self, *, issuer: str, keys: KeyRing) -> None:
        self._issuer = issuer
        self._keys = keys

    async def named_by(
        self, *, access_token: str | None = None, refresh_tokens: tuple[str | None, ...] = ()
    ) -> list[UUID]:
        """The sessions that these tokens name; what is not a token of ours names none.

        Raises Unavailable where it cannot be known whether one is ours: nobody is told that a session has ended then.
        """
        named = [await self._of_access_token(access_token)] if access_token is not None else []
        named += [await self._of_refresh_token(token) for token in refresh_tokens if token is not None]
        return [session_id for session_id in named if session_id is not None]

    async def _of_access_token(self, access_token: str) -> UUID | None:
        try:
            signed = await SignedPayload.parse(access_token, keys=self._keys)
            return signed.session_id if signed.claims.get("iss") == self._issuer else None
        except InvalidToken:
            return None

    async def _of_refresh_token(self, refresh_token: str) -> UUID | None:
        try:
            return (await RefreshToken.parse(refresh_token, keys=self._keys, issuer=self._issuer)).session_id
        except InvalidToken:
            return None
