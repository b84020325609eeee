"""What goes in and out of `/oauth/*`, as models: forms in, JSON out."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from auth_service.accounts.client_grant import IssuedServiceToken
from auth_service.accounts.introspection import LiveRefreshToken
from auth_service.accounts.live_tokens import LiveAccessToken
from auth_service.endpoints.client_authentication import ClientForm
from auth_service.sessions.issuing import IssuedTokens
from auth_service.tokens import scope as scopes

_TOKEN = "eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCIsImtpZCI6…"  # noqa: S105 — the beginning of one
Target = Annotated[
    tuple[str, ...],
    Field(description="Whom the token is for: one of the client's own; may come several times.", examples=[["orders"]]),
]


class TokenRequest(ClientForm):
    """`client_credentials` for a client with a secret; `refresh_token` for the public first-party client."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"grant_type": "client_credentials", "scope": "orders:read"}]}
    )

    repeatable = frozenset({"audience", "resource"})

    grant_type: str = Field(examples=["client_credentials"])
    scope: str | None = Field(default=None, description="Separated by spaces; narrows, never widens.")
    audience: Target = ()
    resource: Target = ()
    refresh_token: str | None = None


class RevocationRequest(ClientForm):
    """The token to revoke, of whichever kind (RFC 7009 §2.1)."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"client_id": "web", "token": _TOKEN}]})

    token: str = Field(examples=[_TOKEN])
    token_type_hint: str | None = Field(default=None, description="Not needed: a token says itself which kind it is.")


class IntrospectionRequest(ClientForm):
    """The token to look at, of whichever kind (RFC 7662 §2.1)."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"token": _TOKEN}]})

    token: str = Field(examples=[_TOKEN])
    token_type_hint: str | None = Field(default=None, description="Not needed: a token says itself which kind it is.")


class OAuthTokenResponse(BaseModel):
    """RFC 6749 §5.1. A service token comes without a refresh token."""

    access_token: str = Field(examples=[_TOKEN])
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 — a name of RFC 6750
    expires_in: int = Field(description="Seconds.", examples=[600])
    refresh_token: str | None = None
    scope: str = Field(examples=["orders:read"])

    @classmethod
    def of(cls, issued: IssuedServiceToken | IssuedTokens) -> Self:
        refresh_token = issued.refresh_token if isinstance(issued, IssuedTokens) else None
        return cls(
            access_token=issued.access_token,
            expires_in=issued.expires_in,
            refresh_token=refresh_token,
            scope=issued.scope,
        )


class IntrospectionResponse(BaseModel):
    """RFC 7662 §2.2. A token that is not live, or not the caller's business, is `{"active": false}` and no more."""

    active: bool
    scope: str | None = Field(default=None, examples=["orders:read"])
    client_id: str | None = None
    username: str | None = None
    token_type: Literal["Bearer"] | None = Field(default=None, description="Of an access token.")
    exp: int | None = None
    iat: int | None = None
    sub: str | None = None
    aud: str | list[str] | None = None
    iss: str | None = None
    jti: str | None = None
    sid: str | None = None

    @classmethod
    def of(cls, found: LiveAccessToken | LiveRefreshToken | None) -> Self:
        match found:
            case None:
                return cls(active=False)
            case LiveAccessToken(claims=claims, subject=subject):
                return cls(
                    active=True,
                    scope=scopes.join(claims.scope),
                    client_id=claims.client_id,
                    username=subject.username if subject else None,
                    token_type="Bearer",  # noqa: S106
                    exp=int(claims.expires_at),
                    iat=int(claims.issued_at),
                    sub=claims.subject,
                    aud=claims.audience[0] if len(claims.audience) == 1 else list(claims.audience),
                    iss=claims.issuer,
                    jti=claims.token_id,
                    sid=claims.session_id,
                )
            case LiveRefreshToken(token, session, subject):
                return cls(
                    active=True,
                    scope=scopes.join(session.scope & subject.held_scopes),
                    client_id=token.client_id,
                    username=subject.username,
                    exp=int(token.expires_at.timestamp()),
                    iat=int(token.issued_at.timestamp()),
                    sub=str(token.subject),
                    aud=token.issuer,
                    iss=token.issuer,
                    sid=str(token.session_id),
                )


class OAuthError(BaseModel):
    """RFC 6749 §5.2."""

    error: str = Field(examples=["invalid_client"])
    error_description: str = Field(examples=["The client is not known here, or did not prove who it is."])
