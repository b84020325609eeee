"""The JSON that goes in and out of `/user/*`, as models: they parse, they write, and they are the OpenAPI document."""

from datetime import UTC, datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, model_validator

from auth_service.accounts import names
from auth_service.accounts.passwords import MAX_BYTES
from auth_service.endpoints.body import Body, Text
from auth_service.sessions.issuing import IssuedTokens
from auth_service.sessions.session import Session, Transport
from auth_service.tokens import scope as scopes
from auth_service.tokens.subject import Subject

Username = Annotated[Text, Field(min_length=1, max_length=names.USERNAME_MAX_LENGTH, examples=["ada"])]
Email = Annotated[Text, Field(min_length=3, max_length=names.EMAIL_MAX_LENGTH, examples=["ada@example.com"])]
Password = Annotated[
    Text,
    Field(
        min_length=1, max_length=MAX_BYTES, examples=["correct horse battery"], json_schema_extra={"format": "password"}
    ),
]
Scope = Annotated[Text, Field(max_length=scopes.MAX_LENGTH, pattern=scopes.PATTERN, examples=["profile"])]
RefreshTokenText = Annotated[Text, Field(min_length=1, max_length=8192)]
Moment = Annotated[datetime, PlainSerializer(lambda moment: _rfc3339(moment), return_type=str)]
"""RFC 3339, UTC."""


class _SignInBody(Body):
    password: Password
    transport: Transport = Field("body", description="`cookie` for browsers: no script ever sees the refresh token.")
    scope: Scope | None = Field(None, description="Space-separated; what the user does not hold is left out.")


class Registration(_SignInBody):
    """A new account."""

    username: Username
    email: Email


class Login(_SignInBody):
    """Either `email` or `username`, and the password."""

    email: Email | None = None
    username: Username | None = None

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if (self.email is None) == (self.username is None):
            raise ValueError("needs either email or username")
        return self


class Refresh(Body):
    """The refresh token, unless the cookie carries it."""

    refresh_token: RefreshTokenText | None = None


class Logout(Body):
    """The refresh token, unless the cookie or the bearer access token names the session."""

    refresh_token: RefreshTokenText | None = None


class AccountChange(Body):
    """What is to change. A new `email` needs `current_password`."""

    username: Username | None = None
    email: Email | None = None
    current_password: Password | None = None


class PasswordChange(Body):
    """The old and the new password."""

    current_password: Password
    new_password: Password


class User(BaseModel):
    """Who a user is. Names are for display: key by `id`."""

    id: UUID
    username: str
    email: str

    @classmethod
    def of(cls, subject: Subject) -> Self:
        return cls(id=subject.id, username=subject.username, email=subject.email)


class TokenResponse(BaseModel):
    """Tokens of one session. With the cookie transport `refresh_token` is absent: it is in the cookie alone."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 — a name of RFC 6750
    expires_in: int = Field(description="Seconds.")
    refresh_token: str | None = None
    refresh_expires_in: int = Field(description="Seconds.")
    scope: str
    user: User

    @classmethod
    def of(cls, tokens: IssuedTokens) -> Self:
        return cls(
            access_token=tokens.access_token,
            expires_in=tokens.expires_in,
            refresh_token=tokens.refresh_token if tokens.transport == "body" else None,
            refresh_expires_in=tokens.refresh_expires_in,
            scope=tokens.scope,
            user=User.of(tokens.subject),
        )


class SessionInfo(BaseModel):
    """A live session, for its owner to recognise. `last_used_at` is to the hour: finer would be a thief's clock."""

    id: UUID
    created_at: Moment
    last_used_at: Moment
    expires_at: Moment
    ip: str | None
    user_agent: str | None
    current: bool

    @classmethod
    def of(cls, session: Session, *, current: UUID) -> Self:
        return cls(
            id=session.id,
            created_at=session.created_at,
            last_used_at=session.last_used_at.replace(minute=0, second=0, microsecond=0),
            expires_at=session.expires_at,
            ip=session.client.ip,
            user_agent=session.client.user_agent,
            current=session.id == current,
        )


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str
    message: str


class Problem(BaseModel):
    """Problem details (RFC 9457). `code` is stable; `detail` is for people and may change."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": True})

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[FieldProblem] = Field([], description="The fields of the request that are wrong.")


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
