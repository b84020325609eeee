"""Discovery: the JWKS (RFC 7517) and the metadata (RFC 8414), both answered from memory."""

import json
from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

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


class JsonWebKey(BaseModel):
    """A public RSA key (RFC 7517). `kid` is its thumbprint (RFC 7638)."""

    kty: Literal["RSA"]
    use: Literal["sig"]
    alg: Literal["RS256"]
    kid: str = Field(examples=["NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"])
    n: str = Field(examples=["0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWh…"])
    e: str = Field(examples=["AQAB"])


class JsonWebKeySet(BaseModel):
    """The keys that verify this issuer's tokens (RFC 7517 §5)."""

    keys: list[JsonWebKey]


class Metadata(BaseModel):
    """What this issuer offers (RFC 8414)."""

    issuer: str = Field(examples=["https://auth.example.com"])
    jwks_uri: str = Field(examples=["https://auth.example.com/.well-known/jwks.json"])
    revocation_feed_endpoint: str = Field(examples=["https://auth.example.com/revocations"])
    token_endpoint: str = Field(examples=["https://auth.example.com/oauth/token"])
    token_endpoint_auth_methods_supported: list[str] = Field(examples=[["client_secret_basic"]])
    revocation_endpoint: str = Field(examples=["https://auth.example.com/oauth/revoke"])
    revocation_endpoint_auth_methods_supported: list[str] = Field(examples=[["client_secret_basic"]])
    introspection_endpoint: str = Field(examples=["https://auth.example.com/oauth/introspect"])
    introspection_endpoint_auth_methods_supported: list[str] = Field(examples=[["client_secret_basic"]])
    response_types_supported: list[str] = Field(examples=[[]])
    grant_types_supported: list[str] = Field(examples=[["client_credentials", "refresh_token"]])
    service_documentation: str = Field(examples=["https://auth.example.com/docs"])


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
        jwks = Answer("The public keys.", JsonWebKeySet, headers=etagged)
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
                {200: Answer("The metadata.", Metadata, headers=headers)},
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
