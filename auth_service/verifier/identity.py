"""Who sent a request, as Starlette's `request.user` and `request.auth` (RFC 9068 claims behind both)."""

from collections.abc import Collection, Mapping
from typing import Any

from starlette.authentication import AuthCredentials, BaseUser

from auth_service.verifier.claims import AccessTokenClaims
from auth_service.verifier.token_cache import VerifiedToken
from auth_service.verifier.verifier import Verifier

AUTHENTICATED = "authenticated"
"""The scope that Starlette's own `requires` asks for; every good token has it here."""


class JWTUser(BaseUser):
    """The bearer of an access token. Store `id`: names and addresses change, and may be taken by somebody else later.

    For a service token it is the client: `id` is its client id, and it has neither name nor address.

    One object serves all requests with its token, so it cannot be changed: what one request finds out about its user
    belongs into `request.state`.
    """

    claims: AccessTokenClaims

    def __init__(self, claims: AccessTokenClaims) -> None:
        object.__setattr__(self, "claims", claims)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a JWTUser serves many requests and cannot be changed: keep {name!r} in request.state")

    @property
    def id(self) -> str:
        """The `sub` claim."""
        return self.claims.subject

    @property
    def identity(self) -> str:
        return self.claims.subject

    @property
    def username(self) -> str | None:
        return self.claims.username

    @property
    def email(self) -> str | None:
        """None unless the issuer puts addresses into its tokens; whether anybody checked it is `email_verified`."""
        return self.claims.email

    @property
    def display_name(self) -> str:
        return self.claims.username or self.claims.subject

    @property
    def is_authenticated(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JWTUser) and (self.claims.issuer, self.id) == (other.claims.issuer, other.id)

    def __hash__(self) -> int:
        return hash((self.claims.issuer, self.id))

    def __repr__(self) -> str:
        return f"JWTUser({self.id!r})"


class BearerCredentials(AuthCredentials):
    """What the access token allows: `scopes` (with "authenticated"), and every claim of it."""

    def __init__(self, verifier: Verifier, claims: AccessTokenClaims) -> None:
        self.verifier = verifier
        self.held = claims.scope
        self.claims: Mapping[str, Any] = claims.claims
        """The claims as they were signed."""

    @property
    def scopes(self) -> list[str]:  # type: ignore[override]
        return [AUTHENTICATED, *sorted(self.held)]

    def allow(self, scopes: Collection[str]) -> bool:
        """Whether the token has all of `scopes`."""
        return self.held.issuperset(scopes) or all(scope in self.held or scope == AUTHENTICATED for scope in scopes)


class AnonymousCredentials(AuthCredentials):
    """Of a request without a token: allows nothing, and knows which verifier would have been asked."""

    def __init__(self, verifier: Verifier) -> None:
        self.scopes = []
        self.verifier = verifier


def identity(verifier: Verifier, verified: VerifiedToken) -> tuple[JWTUser, BearerCredentials]:
    """Starlette's `user` and `auth` for a verified token: the same for every request that presents it."""
    found: tuple[JWTUser, BearerCredentials] | None = verified.identity
    if found is None:
        found = verified.identity = JWTUser(verified.claims), BearerCredentials(verifier, verified.claims)
    return found
