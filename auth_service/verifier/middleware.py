"""`BearerMiddleware`: every request's access token verified before the application sees it. Pure ASGI.

What a route demands is said by `requires.py`; a request without a token goes through as anonymous.
"""

from starlette.authentication import UnauthenticatedUser
from starlette.types import ASGIApp, Receive, Scope, Send

from auth_service.verifier.challenge import answer, challenge
from auth_service.verifier.credentials import offered_access_token, presented_access_token
from auth_service.verifier.errors import VerifierError
from auth_service.verifier.identity import AnonymousCredentials, BearerCredentials, JWTUser
from auth_service.verifier.lease import EventStreamLease, WebSocketLease
from auth_service.verifier.verifier import Verifier


class BearerMiddleware:
    """Sets `user` and `auth` in the scope; refuses a token that is not good, whatever the route (RFC 6750 §3).

    A WebSocket (with 1008) and an event stream are ended when their token is revoked or expires.
    """

    def __init__(self, app: ASGIApp, *, verifier: Verifier) -> None:
        self._app = app
        self._verifier = verifier

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        verifier = self._verifier
        try:
            access_token = presented_access_token(scope)
            if access_token is None:
                verified = None
            else:
                verified = verifier.authenticate_at_once(access_token) or await verifier.authenticate(access_token)
        except VerifierError as refusal:
            await answer(challenge(refusal, realm=verifier.realm), scope, receive, send)
            return
        if verified is None:
            scope["user"], scope["auth"] = UnauthenticatedUser(), AnonymousCredentials(verifier)
            await self._app(scope, receive, send)
            return
        scope["user"], scope["auth"] = JWTUser(verified.claims), BearerCredentials(verifier, verified)
        lease: EventStreamLease | WebSocketLease
        if kind == "http":
            lease = EventStreamLease(verifier, verified, send)
        else:
            offered = scope.get("subprotocols") or []
            by_subprotocol = offered_access_token(offered) is not None
            if by_subprotocol:
                # What is left are the application's own; the token is none of its business.
                scope["subprotocols"] = list(offered)[2:]
            lease = WebSocketLease(verifier, verified, receive, send, by_subprotocol=by_subprotocol)
            receive = lease.receive
        try:
            await self._app(scope, receive, lease.send)
        except Exception as exc:
            if not lease.explains(exc):
                raise
        finally:
            if lease.opened:
                await lease.aclose()
