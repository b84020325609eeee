"""`BearerMiddleware`: every request's access token verified before the application sees it. Pure ASGI.

What a route demands is said by `requires.py`; a request without a token goes through as anonymous.
"""

from collections.abc import Awaitable
from hashlib import sha256

from starlette.authentication import UnauthenticatedUser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from auth_service.verifier.challenge import answer, challenge
from auth_service.verifier.credentials import authorization, bearer_token, presented_access_token
from auth_service.verifier.errors import VerifierError
from auth_service.verifier.identity import AnonymousCredentials, identity
from auth_service.verifier.lease import EventStreamLease, WebSocketLease, is_event_stream
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
            verified = None
            if kind == "websocket":
                access_token = presented_access_token(scope)
                if access_token is not None:
                    verified = await verifier.authenticate(access_token)
            elif (header := authorization(scope)) is not None:
                digest = sha256(header).digest()
                # All of the header: one that was good before is well formed, too.
                verified = verifier.known(digest)
                if verified is None:
                    access_token = bearer_token(header)
                    if access_token is not None:
                        verified = await verifier.authenticate(access_token, digest)
        except VerifierError as refusal:
            await answer(challenge(refusal, realm=verifier.realm), scope, receive, send)
            return
        if verified is None:
            scope["user"], scope["auth"] = UnauthenticatedUser(), AnonymousCredentials(verifier)
            await self._app(scope, receive, send)
            return
        scope["user"], scope["auth"] = verified.identity or identity(verifier, verified)
        lease: EventStreamLease | WebSocketLease | None = None

        def send_unless_stream(message: Message) -> Awaitable[None]:
            nonlocal lease
            if lease is None:
                if message["type"] != "http.response.start":
                    return send(message)
                headers = message.get("headers", ())
                if type(headers) is not list:  # what can be read only once is for the server to read
                    message = {**message, "headers": (headers := list(headers))}
                if not is_event_stream(headers):
                    return send(message)  # nearly every answer is no stream, and costs no lease
                lease = EventStreamLease(verifier, verified, send)
            return lease.send(message)

        leased_send: Send = send_unless_stream
        if kind == "websocket":
            lease = WebSocketLease(verifier, verified, scope, receive, send)
            receive, leased_send = lease.receive, lease.send
        try:
            await self._app(scope, receive, leased_send)
        except Exception as exc:
            if lease is None or not lease.explains(exc):
                raise
        finally:
            if lease is not None:
                await lease.aclose()
