"""The JSON that goes in and out of `/user/*`, as models: they parse, they write, and they are the OpenAPI document."""

from datetime import UTC, datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from auth_service.accounts import names
from auth_service.accounts.passwords import MAX_BYTES
from auth_service.endpoints.body import Body, Text
from auth_service.sessions.issuing import IssuedTokens
from auth_service.sessions.session import Session, Transport
from auth_service.tokens import scope as scopes
from auth_service.tokens.subject import Subject

_PASSWORD = "correct horse battery staple"  # noqa: S105 — an example
_ID = "0b9b4a0e-7f0c-4d8b-9a51-3f6a2f1c8e57"
_ACCESS_TOKEN = "eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCIsImtpZCI6…"  # noqa: S105 — the beginning of one
_REFRESH_TOKEN = "eyJhbGciOiJSUzI1NiIsInR5cCI6InJ0K2p3dCIsImtpZCI6…"  # noqa: S105


def _short_enough(password: str) -> str:
    # Before anything is hashed, and before its characters are counted: each can take four bytes.
    if len(password.encode()) > MAX_BYTES:
        raise ValueError(f"must have at most {MAX_BYTES} bytes")
    return password


Username = Annotated[Text, Field(min_length=1, max_length=names.USERNAME_MAX_LENGTH, examples=["ada"])]
Email = Annotated[Text, Field(min_length=3, max_length=names.EMAIL_MAX_LENGTH, examples=["ada@example.com"])]
Password = Annotated[
    Text,
    AfterValidator(_short_enough),
    Field(
        min_length=1,
        max_length=MAX_BYTES,
        description=f"At most {MAX_BYTES} bytes of UTF-8.",
        examples=[_PASSWORD],
        json_schema_extra={"format": "password"},
    ),
]
# Its pattern leaves no room for what `Text` refuses.
Scope = Annotated[
    str,
    Field(
        max_length=scopes.MAX_LENGTH,
        pattern=scopes.PATTERN,
        description="Separated by spaces; what the user does not hold is left out.",
        examples=["profile"],
    ),
]
AskedTransport = Annotated[
    Transport, Field(description="`cookie` for browsers: no script ever sees the refresh token.", examples=["body"])
]
RefreshTokenText = Annotated[Text, Field(min_length=1, max_length=8192, examples=[_REFRESH_TOKEN])]
Moment = Annotated[
    datetime,
    PlainSerializer(lambda moment: _rfc3339(moment), return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2030-01-31T12:00:00Z"]}),
]
"""RFC 3339, UTC."""


class Members(Body):
    """What may be left out is left out: `null` would be a second way to say it."""

    @field_validator("*", mode="before")
    @classmethod
    def _not_null(cls, value: object) -> object:
        if value is None:
            raise ValueError("must not be null: leave it out")
        return value


class Registration(Members):
    """A new account."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"username": "ada", "email": "ada@example.com", "password": _PASSWORD}]}
    )

    username: Username
    email: Email
    password: Password
    transport: AskedTransport = "body"
    scope: Scope | None = None


class Login(Members):
    """Either `email` or `username`, and the password."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["email"]}, {"required": ["username"]}],
            "examples": [{"email": "ada@example.com", "password": _PASSWORD}],
        }
    )

    alternatives = ("email", "username")

    email: Email | None = None
    username: Username | None = None
    password: Password
    transport: AskedTransport = "body"
    scope: Scope | None = None

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if (self.email is None) == (self.username is None):
            raise ValueError("needs either email or username")
        return self


class Refresh(Members):
    """The refresh token, unless the cookie carries it."""

    refresh_token: RefreshTokenText | None = None


class Logout(Members):
    """The refresh token, unless the cookie or the bearer access token names the session."""

    # Any text: what cannot be a token is a credential that is no good, and a logout with one ends nothing and succeeds.
    refresh_token: Annotated[str, Field(examples=[_REFRESH_TOKEN])] | None = None


class AccountChange(Members):
    """What is to change. A new `email` needs `current_password`."""

    model_config = ConfigDict(
        json_schema_extra={
            "dependentRequired": {"email": ["current_password"]},
            "examples": [{"email": "ada@example.org", "current_password": _PASSWORD}],
        }
    )

    username: Username | None = None
    email: Email | None = None
    current_password: Password | None = None


class PasswordChange(Members):
    """The old and the new password."""

    current_password: Password
    new_password: Password


class User(BaseModel):
    """Who a user is. Names are for display: key by `id`."""

    id: UUID = Field(examples=[_ID])
    username: str = Field(examples=["ada"])
    email: str = Field(examples=["ada@example.com"])

    @classmethod
    def of(cls, subject: Subject) -> Self:
        return cls(id=subject.id, username=subject.username, email=subject.email)


class TokenResponse(BaseModel):
    """Tokens of one session. With the cookie transport `refresh_token` is absent: it is in the cookie alone."""

    access_token: str = Field(examples=[_ACCESS_TOKEN])
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 — a name of RFC 6750
    expires_in: int = Field(description="Seconds.", examples=[600])
    refresh_token: str | None = Field(None, examples=[_REFRESH_TOKEN])
    refresh_expires_in: int = Field(description="Seconds.", examples=[604_800])
    scope: str = Field(description="Separated by spaces.", examples=["profile"])
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

    id: UUID = Field(examples=[_ID])
    created_at: Moment
    last_used_at: Moment
    expires_at: Moment
    ip: str | None = Field(examples=["203.0.113.7"])
    user_agent: str | None = Field(examples=["Mozilla/5.0"])
    current: bool = Field(description="Whether this request came from it.", examples=[True])

    @classmethod
    def of(cls, session: Session, *, current: UUID) -> Self:
        return cls(
            id=session.id,
            created_at=session.created_at,
            last_used_at=session.last_used_at.replace(minute=0, second=0, microsecond=0),
            expires_at=session.expires_at,
            ip=session.device.ip,
            user_agent=session.device.user_agent,
            current=session.id == current,
        )


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str = Field(examples=["email"])
    message: str = Field(examples=["is required"])


class Problem(BaseModel):
    """Problem details (RFC 9457). `code` is stable; `detail` is for people and may change."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": True})

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Bad Request"])
    status: int = Field(examples=[400])
    code: str = Field(examples=["invalid_request"])
    detail: str = Field(examples=["These fields are wrong: email."])
    errors: list[FieldProblem] | None = Field(None, description="The fields of the request that are wrong.")


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
