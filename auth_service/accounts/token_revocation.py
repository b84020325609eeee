"""Revocation of one token (RFC 7009): a session's token ends its session, a service token is ended by itself.

A client can end only what it was given; for everything else the answer is the same, and nothing changes.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from auth_service import audit
from auth_service.audit import Actor, Source
from auth_service.keys.key_ring import KeyRing
from auth_service.revocation import journal
from auth_service.revocation.announcer import Announcer
from auth_service.sessions.ending import SessionEnding
from auth_service.stores.database import Database, Statements, read_time
from auth_service.tokens.access_token import SignedPayload
from auth_service.tokens.refresh_token import RefreshToken
from auth_service.verifier.claims import text_claim, time_claim
from auth_service.verifier.errors import InvalidToken
from auth_service.verifier.revocations import Entry, revocation_id


class TokenRevocation:
    """Ends what a token stands for. Raises Unavailable when PostgreSQL is away; Redis being away changes nothing."""

    def __init__(
        self, *, issuer: str, database: Database, keys: KeyRing, ending: SessionEnding, announcer: Announcer
    ) -> None:
        self._issuer = issuer
        self._database = database
        self._keys = keys
        self._ending = ending
        self._announcer = announcer

    async def revoke(self, token: str, *, client_id: str, source: Source) -> None:
        """Revoke `token`, of whichever kind it is, if `client_id` was given it.

        A session's token need not be fresh: as with a logout, whoever has held one may end its session.
        """
        session_id, claims = await self._read(token, client_id)
        if session_id is not None:
            await self._ending.end([session_id], reason="logout", by=source)
            return
        # Also where nothing is to be done: while PostgreSQL is away no answer sounds as if something had been.
        async with self._database.transaction() as transaction:
            now = await read_time(transaction, self._database.clock)
            entries = list[Entry]()
            if claims is not None and time_claim(claims, "exp") > now.timestamp():
                entries = await self._end_service_token(transaction, claims, source, now=now)
        await self._announcer.announce_committed(entries)

    async def _read(self, token: str, client_id: str) -> tuple[UUID | None, dict[str, Any] | None]:
        """The session that `token` stands for, or the claims of a service token; neither where it is not this client's.

        The two kinds exclude each other (`typ`), so no hint is needed to tell which one it is.
        """
        try:
            refresh_token = await RefreshToken.parse(token, keys=self._keys, issuer=self._issuer)
        except InvalidToken:
            pass
        else:
            return (refresh_token.session_id if refresh_token.client_id == client_id else None), None
        try:
            signed = await SignedPayload.parse(token, keys=self._keys)
            claims = signed.claims
            if (text_claim(claims, "iss"), text_claim(claims, "client_id")) != (self._issuer, client_id):
                return None, None
            return (signed.session_id, None) if "sid" in claims else (None, claims)
        except InvalidToken:
            return None, None

    async def _end_service_token(
        self, transaction: Statements, claims: dict[str, Any], source: Source, *, now: datetime
    ) -> list[Entry]:
        token_id, client_id = text_claim(claims, "jti"), text_claim(claims, "client_id")
        if not await journal.holds(transaction, [("j", token_id)]):
            # Under the name that the feed has for it: the id itself is in no log.
            target: tuple[audit.TargetKind, str] = ("token", revocation_id(token_id))
            by = Actor("client", client_id, source)
            await audit.record(transaction, "token.revoked", by=by, now=now, target=target)
        return await journal.revoke(transaction, "j", [token_id], reason="revoked", now=now)
