"""Verification of the tokens this project issues: the only package a downstream service imports.

    verifier = Verifier("https://auth.example.com", audience="orders")
    app = Starlette(routes=routes, lifespan=verifier.lifespan,
                    middleware=[Middleware(BearerMiddleware, verifier=verifier)])

Beside it: `auth_service.verifier.fastapi` (a dependency) and `auth_service.verifier.testing` (an issuer for tests).
Nothing here imports the server's packages; the issuer itself uses these checks for its own bearer tokens, so the wire
contract has one definition.
"""

from auth_service.verifier.claims import AccessTokenClaims
from auth_service.verifier.errors import (
    BadSignature,
    ExpiredToken,
    InsufficientScope,
    InvalidClaim,
    InvalidRequest,
    InvalidToken,
    KeysUnavailable,
    MalformedToken,
    MissingCredentials,
    RevocationsUnavailable,
    RevokedToken,
    Unavailable,
    UnknownKey,
    VerifierError,
)
from auth_service.verifier.identity import BearerCredentials, JWTUser
from auth_service.verifier.middleware import BearerMiddleware
from auth_service.verifier.requires import authorized, requires
from auth_service.verifier.starlette_backend import JWTAuthenticationBackend
from auth_service.verifier.verifier import Verifier

__all__ = [
    "AccessTokenClaims",
    "BadSignature",
    "BearerCredentials",
    "BearerMiddleware",
    "ExpiredToken",
    "InsufficientScope",
    "InvalidClaim",
    "InvalidRequest",
    "InvalidToken",
    "JWTAuthenticationBackend",
    "JWTUser",
    "KeysUnavailable",
    "MalformedToken",
    "MissingCredentials",
    "RevocationsUnavailable",
    "RevokedToken",
    "Unavailable",
    "UnknownKey",
    "Verifier",
    "VerifierError",
    "authorized",
    "requires",
]
