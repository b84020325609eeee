"""Verification of the tokens this project issues: the only package a downstream service imports.

Nothing here imports the server's packages; the issuer itself uses these checks for its own bearer tokens,
so the wire contract has one definition.
"""

from auth_service.verifier.claims import AccessTokenClaims
from auth_service.verifier.errors import (
    BadSignature,
    ExpiredToken,
    InvalidClaim,
    InvalidToken,
    MalformedToken,
    UnknownKey,
    VerifierError,
)
from auth_service.verifier.jws import CompactJWS

__all__ = [
    "AccessTokenClaims",
    "BadSignature",
    "CompactJWS",
    "ExpiredToken",
    "InvalidClaim",
    "InvalidToken",
    "MalformedToken",
    "UnknownKey",
    "VerifierError",
]
