"""Discovery: the JWKS (RFC 7517) and the metadata (RFC 8414), both answered from memory."""

import json
from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response

from auth_service.endpoints import schemas
from auth_service.endpoints.client_authentication import METHODS
from auth_service.endpoints.conditional import etag_matches
from auth_service.endpoints.operation import Answer, Operation
from auth_service.endpoints.public import oauth, revocations
from auth_service.errors import Unavailable
from auth_service.keys.key_ring import KeyRing
from auth_service.keys.schedule import JWKS_MAX_AGE

JWKS_PATH = "/.well-known/jwks.json"
METADATA_PATHS = ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration")

_CACHE_CONTROL = f"public, max-age={int(JWKS_MAX_AGE.total_seconds())}"


class DiscoveryEndpoints:
    """What a verifier needs to know of this issuer, given its name alone."""

    def __init__(self, *, issuer: str, keys: KeyRing) -> None:
        self._keys = keys
        # Absolute addresses come from the configuration, never from a Host header.
        self._metadata = json.dumps(
            {
                "issuer": issuer,
                "jwks_uri": f"{issuer}{JWKS_PATH}",
                "revocation_feed_endpoint": f"{issuer}{revocations.PATH}",
                "token_endpoint": f"{issuer}{oauth.TOKEN_PATH}",
                "token_endpoint_auth_methods_supported": [*METHODS, "none"],
                "revocation_endpoint": f"{issuer}{oauth.REVOCATION_PATH}",
                "revocation_endpoint_auth_methods_supported": [*METHODS, "none"],
                "introspection_endpoint": f"{issuer}{oauth.INTROSPECTION_PATH}",
                "introspection_endpoint_auth_methods_supported": METHODS,
                "response_types_supported": [],
                "grant_types_supported": oauth.GRANT_TYPES,
                "service_documentation": f"{issuer}/docs",
            }
        ).encode()

    def operations(self) -> Iterable[Operation]:
        headers = (("Cache-Control", "How long it may be kept."),)
        etagged = (("ETag", "For `If-None-Match`."), *headers)
        jwks = Answer("The public keys.", schemas.JsonWebKeySet, headers=etagged)
        yield Operation(
            "GET",
            JWKS_PATH,
            self.jwks,
            "The keys that verify this issuer's tokens",
            "Discovery",
            {200: jwks, 304: Answer("They have not changed.", headers=etagged)},
            problems=(503,),
        )
        for path in METADATA_PATHS:
            yield Operation(
                "GET",
                path,
                self.metadata,
                "What this issuer offers, and where",
                "Discovery",
                {200: Answer("The metadata.", schemas.Metadata, headers=headers)},
            )

    async def jwks(self, request: Request) -> Response:
        if not len(self._keys):
            # An empty set would be a wrong answer: verifiers would drop the keys they hold.
            raise Unavailable("no keys yet")
        headers = {"ETag": self._keys.etag, "Cache-Control": _CACHE_CONTROL}
        if etag_matches(request.headers.get("if-none-match", ""), self._keys.etag):
            return Response(status_code=304, headers=headers)
        return Response(self._keys.jwks, headers=headers, media_type="application/json")

    async def metadata(self, _request: Request) -> Response:
        headers = {"Cache-Control": _CACHE_CONTROL}
        return Response(self._metadata, headers=headers, media_type="application/json")
