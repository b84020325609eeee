"""The issuer as a verifier reaches it: HTTP to one origin, with limits, and the addresses its metadata names.

Nothing but the configured issuer's own documents is ever asked for: an address on another origin is refused, no
redirect is followed, and nothing inside a token leads to a request.
"""

import asyncio
import contextlib
import ipaddress
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from urllib.parse import quote_plus, urlsplit

import httpx2

_METADATA_PATH = "/.well-known/oauth-authorization-server"
_MAX_DOCUMENT = 65_536  # bytes
_PATIENCE = 3.0  # seconds for one document, connecting included
_CONNECT_PATIENCE = 1.0
_ENDLESS = 10**9  # seconds
_JSON = ("application/json", "application/jwk-set+json")
"""The second is a JWKS' own (RFC 7517 §8.5.2)."""
_HEADER_SAFE = re.compile(r"[A-Za-z0-9._~+/=-]{1,8192}", re.ASCII)  # RFC 6750 §2.1


class IssuerUnreachable(Exception):
    """The issuer did not answer, or not as it should. The text is for logs."""


class IssuerRefuses(IssuerUnreachable):
    """The issuer answered that we may not: our credentials are wrong, missing, or not enough."""


@dataclass(frozen=True, slots=True)
class Document:
    """An answer of the issuer. `content` is None where it said that nothing has changed (304)."""

    content: bytes | None
    headers: httpx2.Headers


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is needed of the issuer's metadata (RFC 8414)."""

    jwks_uri: str
    revocation_feed: str | None
    token_endpoint: str | None


class IssuerClient:
    """Speaks to one issuer. `transport` is what the requests go through: httpx's own, or a test's."""

    def __init__(self, issuer: str, *, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._issuer = issuer
        self._http = httpx2.AsyncClient(
            transport=transport,
            follow_redirects=False,
            # Plain http is for loopback alone, so it must not leave this machine through a proxy.
            trust_env=issuer.startswith("https://"),
            # A body is read as it was sent: what is not unpacked cannot be a decompression bomb.
            headers={"Accept-Encoding": "identity", "User-Agent": "auth-service-verifier"},
            # Requests are minutes apart. A kept connection may have died unnoticed, and the next feed would wait on it.
            limits=httpx2.Limits(max_connections=8, max_keepalive_connections=0),
            timeout=httpx2.Timeout(_PATIENCE, connect=_CONNECT_PATIENCE),
        )
        self._metadata: Metadata | None = None
        self._asking = asyncio.Lock()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def metadata(self) -> Metadata:
        """The metadata, asked for once until `forget_metadata`. Raises IssuerUnreachable."""
        async with self._asking:
            if self._metadata is None:
                document = await self.document(f"{self._issuer}{_METADATA_PATH}")
                self._metadata = self._read_metadata(document.content or b"")
            return self._metadata

    def forget_metadata(self) -> None:
        """Ask anew next time: an address in it did not answer as it should."""
        self._metadata = None

    async def document(self, url: str, *, etag: str | None = None) -> Document:
        """One JSON document of at most 64 KiB, within three seconds. Raises IssuerUnreachable."""
        headers = {"Accept": ", ".join(_JSON)} | ({"If-None-Match": etag} if etag else {})
        with _failures():
            async with asyncio.timeout(_PATIENCE), self._http.stream("GET", url, headers=headers) as response:
                if etag and response.status_code == 304:
                    return Document(None, response.headers)
                return Document(await _content(response), response.headers)

    async def service_token(self, url: str, client_id: str, client_secret: str, *, scope: str) -> tuple[str, float]:
        """An access token of the client credentials grant (RFC 6749 §4.4), and its life in seconds.

        Raises IssuerRefuses, IssuerUnreachable.
        """
        # RFC 6749 §2.3.1: both are form-encoded before they are joined.
        credentials = httpx2.BasicAuth(quote_plus(client_id), quote_plus(client_secret))
        form = {"grant_type": "client_credentials", "scope": scope}
        headers = {"Accept": "application/json"}
        with _failures():
            async with (
                asyncio.timeout(_PATIENCE),
                self._http.stream("POST", url, data=form, auth=credentials, headers=headers) as response,
            ):
                if response.status_code in (400, 401):
                    raise IssuerRefuses("its token endpoint refuses our client id, secret or scope")
                return _service_token(await _content(response))

    @contextlib.asynccontextmanager
    async def event_stream(self, url: str, *, access_token: str | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of an event stream as they come, for as long as the caller has patience.

        Raises IssuerUnreachable, also from the iterator; IssuerRefuses where `access_token` is not enough.
        """
        timeout = httpx2.Timeout(None, connect=_CONNECT_PATIENCE)
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if access_token is not None:
            headers["Authorization"] = f"Bearer {access_token}"
        with _failures():
            async with self._http.stream("GET", url, headers=headers, timeout=timeout) as response:
                if response.status_code in (401, 403):
                    missing = "wants a client_id and a client_secret" if access_token is None else "refuses our token"
                    raise IssuerRefuses(f"its revocation feed {missing}")
                _require(response, "text/event-stream")
                yield response.aiter_bytes()

    def _read_metadata(self, content: bytes) -> Metadata:
        try:
            members = json.loads(content)
        except (ValueError, RecursionError):
            raise IssuerUnreachable("the metadata is not JSON") from None
        if not isinstance(members, dict) or members.get("issuer") != self._issuer:
            raise IssuerUnreachable("the metadata is another issuer's")
        optional = [members.get(name) for name in ("revocation_feed_endpoint", "token_endpoint")]
        feed, token_endpoint = (None if url is None else self._own_address(url) for url in optional)
        return Metadata(self._own_address(members.get("jwks_uri")), feed, token_endpoint)

    def _own_address(self, url: object) -> str:
        """`url`, if it is on the issuer's own origin: keys from elsewhere would be somebody else's."""
        rest = url.removeprefix(self._issuer) if isinstance(url, str) and url.startswith(self._issuer) else ""
        if not rest.startswith("/") or not isinstance(url, str):
            raise IssuerUnreachable("the metadata names an address that is not on the issuer's origin")
        return url


def checked_issuer(issuer: str) -> str:
    """`issuer`, if it is the origin of one: https, or http on a loopback address, and nothing behind the port.

    Raises ValueError. It must be byte for byte what the issuer calls itself (`iss`).
    """
    wanted = "issuer must be an origin like https://auth.example.com, without a path or a slash at its end"
    try:
        parts = urlsplit(issuer)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(wanted) from None
    if not host or issuer != f"{parts.scheme}://{parts.netloc}" or "@" in parts.netloc:
        raise ValueError(wanted)
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise ValueError("issuer must be https:// unless it is a loopback address")
    return issuer


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _content(response: httpx2.Response) -> bytes:
    """The body of a JSON answer, within the limit."""
    _require(response, *_JSON)
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > _MAX_DOCUMENT:
            raise IssuerUnreachable("a document is too large")
    return bytes(content)


def _service_token(content: bytes) -> tuple[str, float]:
    """Token and life of a token answer (RFC 6749 §5.1)."""
    try:
        members = json.loads(content)
    except (ValueError, RecursionError):
        raise IssuerUnreachable("its token answer is not JSON") from None
    match members:
        case {"access_token": str(access_token), "token_type": str(token_type), "expires_in": int(life)} if (
            token_type.lower() == "bearer" and _HEADER_SAFE.fullmatch(access_token) and 0 < life < _ENDLESS
        ):
            return access_token, float(life)
    raise IssuerUnreachable("its token answer cannot be read")


def _require(response: httpx2.Response, *media_types: str) -> None:
    if response.status_code != 200:
        raise IssuerUnreachable(f"it answered {response.status_code}")
    if response.headers.get("content-type", "").partition(";")[0].strip().lower() not in media_types:
        raise IssuerUnreachable(f"its answer is not {media_types[0]}")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise IssuerUnreachable("its answer is packed, which was not asked for")


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, TimeoutError) as exc:
        raise IssuerUnreachable(type(exc).__name__) from exc
