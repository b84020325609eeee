"""An issuer for the tests of a downstream service: keys, clock and revocation feed in memory, and no network.

    issuer = FakeIssuer(audience="orders")
    app = create_app(issuer.verifier())
    with TestClient(app) as client:
        assert client.get("/orders", headers=issuer.headers(scope="orders:read")).status_code == 200

The verifier under test is the real one: tokens are signed and checked, keys and revocations come over (in-memory) HTTP.
Where the application makes its verifier itself: `FakeIssuer.of(verifier)`, before the application is started.
"""

import asyncio
import json
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any, Self
from urllib.parse import quote_plus
from uuid import uuid4

import httpx2
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from auth_service.verifier.revocations import Entry, Kind, revocation_id
from auth_service.verifier.verifier import Verifier

_RETENTION = 3660.0  # seconds
_LONGEST_PAUSE = 15.0
_HEARTBEAT = 1  # seconds of real time
_BEAT = ("beat", '{"age": 0}')


class FakeClock:
    """A clock that stands still until `FakeIssuer.advance`."""

    def __init__(self) -> None:
        self._epoch = time.time()
        self._passed = 0.0
        self._skipped = 0.0

    def time(self) -> float:
        return self._epoch + self._passed

    def monotonic(self) -> float:
        return self._passed + self._skipped

    def advance(self, seconds: float) -> None:
        self._passed += seconds

    def skip(self, seconds: float) -> None:
        """Let ages grow, and nothing expire."""
        self._skipped += seconds


class FakeIssuer:
    """Signs tokens, publishes keys, rotates and revokes them, and can be away. Usable from any thread."""

    def __init__(self, issuer: str = "https://issuer.test", *, audience: str = "test") -> None:
        self.issuer = issuer
        self.audience = audience
        self.clock = FakeClock()
        self.transport: httpx2.AsyncBaseTransport = httpx2.MockTransport(self._answer)
        self.requests: list[str] = []
        """The paths that verifiers have asked for, outages not counted."""
        self._keys: dict[str, RSAPrivateKey] = {}
        self._revoked: list[Entry] = []
        self._verifiers: list[Verifier] = []
        self._streams: set[_Stream] = set()
        self._away = False
        self._feed_secret: tuple[str, str] | None = None
        self._feed_tokens: set[str] = set()
        self.kid = ""
        """The key that signs now."""
        self.rotate()

    @classmethod
    def of(cls, verifier: Verifier) -> Self:
        """The issuer of a verifier that was made elsewhere, which from now on asks this one. Not once it is open."""
        made = cls(verifier.issuer, audience=verifier.audience[0])
        verifier.use(transport=made.transport, clock=made.clock)
        made._verifiers.append(verifier)
        return made

    def verifier(self, **options: Any) -> Verifier:
        """A verifier of this issuer, for its audience; `options` as `Verifier` takes them."""
        options = {"audience": self.audience, "transport": self.transport, "clock": self.clock, **options}
        made = Verifier(self.issuer, **options)
        self._verifiers.append(made)
        return made

    def token(
        self,
        *,
        sub: str = "user-1",
        scope: str | Collection[str] = "",
        sid: str | None = "session-1",
        username: str | None = None,
        email: str | None = None,
        client_id: str = "web",
        audience: str | list[str] | None = None,
        expires_in: float = 600,
        **claims: Any,
    ) -> str:
        """An access token, good for `expires_in` seconds; each has a `jti` of its own. `claims` are added, and win.

        A service token: `sid=None, sub=client_id`.
        """
        now = int(self.clock.time())
        optional = {"sid": sid, "preferred_username": username, "email": email}
        payload = {
            "iss": self.issuer,
            "aud": self.audience if audience is None else audience,
            "sub": sub,
            "client_id": client_id,
            "scope": scope if isinstance(scope, str) else " ".join(scope),
            "jti": str(uuid4()),
            "iat": now,
            "auth_time": now,
            "exp": int(now + expires_in),
            **{name: value for name, value in optional.items() if value is not None},
            **claims,
        }
        return jwt.encode(payload, self._keys[self.kid], algorithm="RS256", headers={"typ": "at+jwt", "kid": self.kid})

    def headers(self, **token: Any) -> dict[str, str]:
        """The Authorization header with a token; arguments as `token` takes them."""
        return {"Authorization": f"Bearer {self.token(**token)}"}

    def revoke(
        self, *, sid: str | None = None, jti: str | None = None, client_id: str | None = None, kid: str | None = None
    ) -> None:
        """Revoke a session, one token, a client or a key: in force when this returns, unless in an outage."""
        named: list[tuple[Kind, str | None]] = [("s", sid), ("j", jti), ("c", client_id), ("k", kid)]
        expires_at = self.clock.time() + _RETENTION
        entries: list[Entry] = [(kind, revocation_id(claim), expires_at) for kind, claim in named if claim is not None]
        if not entries:
            raise TypeError("say what to revoke: sid, jti, client_id or kid")
        if kid is not None:
            self._keys.pop(kid, None)
            if kid == self.kid:
                self.rotate()
        self._revoked += entries
        self._tell("revoke", json.dumps(entries))

    def require_client(self, client_id: str, client_secret: str) -> None:
        """Let only this client open the feed from now on, as `AUTH_REVOCATION_FEED=client` does.

        A token for it that was given before is not taken any more.
        """
        self._feed_secret = client_id, client_secret
        self._feed_tokens.clear()

    def rotate(self) -> None:
        """Sign with a new key from now on. The old one stays published."""
        key = generate_private_key(public_exponent=65537, key_size=2048)
        self.kid = uuid4().hex
        self._keys[self.kid] = key
        self._end_pauses()

    def remove(self, kid: str) -> None:
        """Publish a key no more; verifiers hear of it when they next ask for the keys."""
        del self._keys[kid]

    def advance(self, seconds: float) -> None:
        """Let time pass. Tokens expire; the issuer is heard again at once, unless it is away."""
        self.clock.advance(seconds)
        self._tell(*_BEAT)
        for verifier in self._verifiers:
            verifier.end_expired()

    def outage(self) -> "Outage":
        """Be away from now on: until `end()`, or for the length of a `with` or an `async with`."""
        self._away = True
        streams, self._streams = self._streams, set()
        for stream in list(streams):
            stream.cut()
        return Outage(self)

    def _end_outage(self) -> None:
        self._away = False
        self._end_pauses()
        for event, data in self._whole_set():
            self._tell(event, data)

    def _end_pauses(self) -> None:
        """Verifiers pause between questions for keys, by a clock that stands still: let those pauses be over."""
        if not self._away:
            self.clock.skip(_LONGEST_PAUSE)
            self._tell(*_BEAT)

    def _tell(self, event: str, data: str) -> None:
        if self._away:
            return
        for verifier in self._verifiers:
            verifier.receive(event, data)
        for stream in list(self._streams):
            stream.tell((event, data))

    def _whole_set(self) -> list[tuple[str, str]]:
        return [("revoke", json.dumps(self._revoked)), ("live", "{}"), _BEAT]

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        if self._away:
            raise httpx2.ConnectError("the issuer is away", request=request)
        path = request.url.path
        self.requests.append(path)
        if path == "/.well-known/oauth-authorization-server":
            addresses = {
                "jwks_uri": "/.well-known/jwks.json",
                "revocation_feed_endpoint": "/revocations",
                "token_endpoint": "/oauth/token",
            }
            named = {name: f"{self.issuer}{address}" for name, address in addresses.items()}
            return httpx2.Response(200, json={"issuer": self.issuer, **named})
        if path == "/.well-known/jwks.json":
            return httpx2.Response(200, json={"keys": [_jwk(kid, key) for kid, key in list(self._keys.items())]})
        if path == "/oauth/token":
            return self._service_token(request)
        if path == "/revocations":
            presented = request.headers.get("authorization", "").removeprefix("Bearer ")
            if self._feed_secret is not None and presented not in self._feed_tokens:
                return httpx2.Response(401, headers={"WWW-Authenticate": "Bearer"})
            hello = ("hello", json.dumps({"iss": self.issuer, "heartbeat": _HEARTBEAT}))
            stream = _Stream([hello, *self._whole_set()], closed=self._streams.discard)
            self._streams.add(stream)
            return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, stream=stream)
        return httpx2.Response(404)

    def _service_token(self, request: httpx2.Request) -> httpx2.Response:
        if self._feed_secret is not None:
            wanted = b64encode(":".join(map(quote_plus, self._feed_secret)).encode()).decode()
            if request.headers.get("authorization") != f"Basic {wanted}":
                return httpx2.Response(401, json={"error": "invalid_client"})
        client_id = self._feed_secret[0] if self._feed_secret else "client-1"
        token = self.token(sub=client_id, client_id=client_id, sid=None, scope="revocations:read", audience=self.issuer)
        self._feed_tokens.add(token)
        return httpx2.Response(200, json={"access_token": token, "token_type": "Bearer", "expires_in": 600})


class Outage:
    """An issuer that is away; see `FakeIssuer.outage`."""

    def __init__(self, issuer: FakeIssuer) -> None:
        self._issuer = issuer

    def end(self) -> None:
        """Be back, and tell what happened meanwhile."""
        self._issuer._end_outage()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self.end()


class _Stream(httpx2.AsyncByteStream):
    """One open feed: the events so far, then those that `tell` brings, until it is cut."""

    def __init__(self, first: list[tuple[str, str]], *, closed: Callable[["_Stream"], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._closed = closed
        self._events: asyncio.Queue[tuple[str, str] | None] = asyncio.Queue()
        self._cut = False
        for event in first:
            self._events.put_nowait(event)

    def tell(self, event: tuple[str, str] | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def cut(self) -> None:
        """Nothing more arrives, not even what was under way: a beat from before an outage must not date it anew."""
        self._cut = True
        self.tell(None)

    async def aclose(self) -> None:
        """Nobody listens any more."""
        self._closed(self)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(_HEARTBEAT):
                    event = await self._events.get()
            except TimeoutError:
                event = _BEAT
            if event is None or self._cut:
                return
            yield f"event: {event[0]}\ndata: {event[1]}\n\n".encode()


def _jwk(kid: str, key: RSAPrivateKey) -> dict[str, str]:
    numbers = key.public_key().public_numbers()
    return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": _uint(numbers.n), "e": _uint(numbers.e)}


def _uint(number: int) -> str:
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
