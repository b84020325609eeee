"""`/revocations`: the revocation feed, as an event stream or, once, as JSON. It names nobody, so it may be public."""

import math
from collections.abc import AsyncIterator, Iterable
from typing import Annotated

from pydantic import BaseModel, Field, WithJsonSchema
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from auth_service.edge.stream_limit import StreamLimit
from auth_service.endpoints import event_stream
from auth_service.endpoints.conditional import etag_matches
from auth_service.endpoints.event_stream import EventStream
from auth_service.endpoints.feed_access import FeedAccess
from auth_service.endpoints.negotiation import wanted_ranges
from auth_service.endpoints.operation import Answer, Operation
from auth_service.revocation.feed import RevocationFeed
from auth_service.verifier.revocations import Kind

PATH = "/revocations"
_STREAMS_PER_ADDRESS = 2500  # and no more than a quarter of all connections


Revocation = Annotated[
    tuple[Kind, str, int],
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": ["string", "integer"]},
            "minItems": 3,
            "maxItems": 3,
            "description": "Kind (s session, j access token, c client, k key), the first 16 bytes of the SHA-256 of "
            "`sid`, `jti`, `client_id` or `kid` as base64url, and the second since the epoch from which on it may be "
            "forgotten.",
            "examples": [["s", "ungWv48Bz-pBQUDeXa4iIw", 1767225600]],
        }
    ),
]


class Revocations(BaseModel):
    """Everything that may no longer be used, although its signature is good."""

    iss: str = Field(examples=["https://auth.example.com"])
    revocations: list[Revocation]


class RevocationEndpoints:
    """What verifiers follow, so that a revoked token stops working everywhere without a question per request.

    `access`: which clients may; None: everybody may.
    """

    def __init__(self, *, feed: RevocationFeed, access: FeedAccess | None, max_connections: int) -> None:
        self._feed = feed
        self._access = access
        self._streams = StreamLimit(max(1, min(_STREAMS_PER_ADDRESS, max_connections // 4)))

    def operations(self) -> Iterable[Operation]:
        headers = (
            ("ETag", "For `If-None-Match`; the same from every process that holds the same set."),
            ("Cache-Control", "Whether it may be kept."),
            ("Age", "Seconds since the issuer last knew the set to be whole, rounded up."),
        )
        yield Operation(
            "GET",
            PATH,
            self.revocations,
            "What is revoked, though its signature is good",
            "Discovery",
            {
                200: Answer(
                    "The live set: once as JSON, or, where `Accept` names `text/event-stream` and does not want JSON "
                    "more, as a stream of the events hello, revoke, live, revoke as it happens, beat every second, and "
                    "bye.",
                    Revocations,
                    headers=headers,
                    streamed_as=event_stream.MEDIA_TYPE,
                ),
                304: Answer("It has not changed.", headers=headers),
            },
            problems=(429, 503) if self._access is None else (400, 401, 403, 429, 503),
            credentials=() if self._access is None else ("client_bearer",),
            anonymous=self._access is None,
        )

    async def revocations(self, request: Request) -> Response:
        if self._access is not None:
            await self._access.require(request)
        if _wants_stream(request):
            self._feed.known_at()
            return EventStream(self._feed.events(), place=self._streams.place(request.state.client_address))
        document, age = await self._feed.document()
        headers = {
            "ETag": document.etag,
            "Cache-Control": "no-cache",
            "Age": str(math.ceil(age)),
            "Vary": "Accept",
        }
        if etag_matches(request.headers.get("if-none-match", ""), document.etag):
            return Response(status_code=304, headers=headers)
        # In pieces: a slow reader costs a connection, not a copy of the whole.
        headers["Content-Length"] = str(document.length)
        return StreamingResponse(_each(document.pieces), headers=headers, media_type="application/json")


def _wants_stream(request: Request) -> bool:
    """Whether `Accept` names an event stream, which `*/*` does not, and does not want JSON more."""
    wanted = wanted_ranges(request.headers.getlist("accept"))
    as_stream = wanted.get(event_stream.MEDIA_TYPE, 0)
    as_json = next((wanted[name] for name in ("application/json", "application/*", "*/*") if name in wanted), 0)
    return as_stream > 0 and as_stream >= as_json


async def _each(pieces: tuple[bytes, ...]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
