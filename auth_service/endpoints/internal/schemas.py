"""The JSON that goes in and out of `/admin/*`, as models: they parse, they write, and they are the OpenAPI document."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from auth_service.accounts import names
from auth_service.accounts.account import Account
from auth_service.accounts.clients import GRANT_TYPES, LONGEST_OVERLAP, OVERLAP, GrantType
from auth_service.accounts.clients import Client as StoredClient
from auth_service.audit import Action
from auth_service.audit_trail import AuditEvent as RecordedEvent
from auth_service.endpoints.body import Text
from auth_service.endpoints.internal.paging import PageQuery
from auth_service.endpoints.query import Moment as GivenMoment
from auth_service.endpoints.schemas import Email, Members, Moment, Password, Username
from auth_service.keys.schedule import KeyLife, State
from auth_service.sessions.session import Session as StoredSession
from auth_service.sessions.session import Transport
from auth_service.tokens import scope as scopes

_ID = "0b9b4a0e-7f0c-4d8b-9a51-3f6a2f1c8e57"


def _fits(granted: list[str]) -> list[str]:
    if not all(map(scopes.is_valid, granted)):
        raise ValueError("each must be printable ASCII without space, quote and backslash")
    if len(scopes.join(set(granted))) > scopes.MAX_LENGTH:
        raise ValueError(f"must have at most {scopes.MAX_LENGTH} characters together")
    return granted


GrantedScopes = Annotated[
    list[str],
    AfterValidator(_fits),
    Field(description="Beyond the scopes that every user holds.", examples=[["reports:read"]]),
]


class NewUser(Members):
    """A new account. No session is opened."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"username": "ada", "email": "ada@example.com", "password": "correct horse battery staple"}]
        }
    )

    username: Username
    email: Email
    password: Password
    granted_scopes: GrantedScopes = Field(default_factory=list)


class UserChange(Members):
    """What is to change. A new `password` and `disabled: true` end every session; `granted_scopes` replaces all."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"disabled": True}]})

    username: Username | None = None
    email: Email | None = None
    password: Password | None = None
    disabled: bool | None = None
    granted_scopes: GrantedScopes | None = None


class UserQuery(PageQuery):
    """Which users."""

    search: Annotated[
        Text,
        Field(
            max_length=names.EMAIL_MAX_LENGTH,
            description="Only those whose user name or e-mail address contains this, letter for letter; case and "
            "compatibility forms of Unicode do not count.",
        ),
    ] = ""


class User(BaseModel):
    """An account. Names are for display: key by `id`."""

    id: UUID = Field(examples=[_ID])
    username: str = Field(examples=["ada"])
    email: str = Field(examples=["ada@example.com"])
    granted_scopes: list[str] = Field(
        description="Beyond the scopes that every user holds.", examples=[["reports:read"]]
    )
    created_at: Moment
    last_login_at: Moment | None
    disabled: bool
    disabled_at: Moment | None

    @classmethod
    def of(cls, account: Account) -> Self:
        return cls(
            id=account.id,
            username=account.username,
            email=account.email,
            granted_scopes=sorted(account.granted_scopes),
            created_at=account.created_at,
            last_login_at=account.last_login_at,
            disabled=account.disabled_at is not None,
            disabled_at=account.disabled_at,
        )


class Session(BaseModel):
    """A live session. `ip` and `user_agent` are those it was opened from, `last_ip` that of its last rotation."""

    id: UUID = Field(examples=[_ID])
    client_id: str = Field(examples=["web"])
    transport: Transport
    scope: str = Field(examples=["profile"])
    created_at: Moment
    last_used_at: Moment
    expires_at: Moment
    ip: str | None = Field(examples=["203.0.113.7"])
    last_ip: str | None = Field(examples=["203.0.113.7"])
    user_agent: str | None = Field(examples=["Mozilla/5.0"])

    @classmethod
    def of(cls, session: StoredSession) -> Self:
        return cls(
            id=session.id,
            client_id=session.client_id,
            transport=session.transport,
            scope=scopes.join(session.scope),
            created_at=session.created_at,
            last_used_at=session.last_used_at,
            expires_at=session.expires_at,
            ip=session.device.ip,
            last_ip=session.last_ip,
            user_agent=session.device.user_agent,
        )


class NewClient(Members):
    """A new client (RFC 7591 §2). What is in its lists is the most that its tokens can have."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"client_name": "billing", "scope": "invoices:read"}]})

    client_name: Annotated[Text, Field(examples=["billing"])]
    grant_types: list[GrantType] = Field(default_factory=lambda: list(GRANT_TYPES))
    scope: Annotated[Text, Field(max_length=scopes.MAX_LENGTH, examples=["invoices:read invoices:write"])] = ""
    audiences: list[Text] = Field(
        default_factory=list, max_length=32, description="Default: those of AUTH_AUDIENCES.", examples=[["orders"]]
    )


class SecretRotation(Members):
    """How long the secret that was current stays good."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"overlap": 3600}]})

    overlap: int = Field(
        int(OVERLAP.total_seconds()), ge=0, le=int(LONGEST_OVERLAP.total_seconds()), description="Seconds."
    )


class Client(BaseModel):
    """A client. `previous_secret_until`: until when the secret before the current one is good too."""

    client_id: UUID = Field(examples=[_ID])
    client_name: str = Field(examples=["billing"])
    grant_types: list[str] = Field(examples=[list(GRANT_TYPES)])
    scope: str = Field(examples=["invoices:read"])
    audiences: list[str] = Field(examples=[["orders"]])
    created_at: Moment
    previous_secret_until: Moment | None

    @classmethod
    def of(cls, client: StoredClient) -> Self:
        return cls(**client.metadata)


class ClientWithSecret(Client):
    """A client and its secret, which is stored hashed alone: nobody can be told it again."""

    client_secret: str = Field(json_schema_extra={"format": "password"})

    @classmethod
    def of_new(cls, client: StoredClient, secret: str) -> Self:
        return cls(**Client.of(client).model_dump(), client_secret=secret)


class Key(BaseModel):
    """A signing key. `removed_at`: when nothing that it signed can be good any more."""

    kid: str = Field(examples=["NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"])
    state: State
    created_at: Moment
    signs_from: Moment
    signs_until: Moment | None
    removed_at: Moment | None

    @classmethod
    def of(cls, life: KeyLife, *, now: datetime) -> Self:
        return cls(
            kid=life.kid,
            state=life.state(now),
            created_at=life.created_at,
            signs_from=life.signs_from,
            signs_until=life.signs_until,
            removed_at=life.removed_at,
        )


class KeySwitch(BaseModel):
    """Which key signs next, and from when."""

    kid: str = Field(examples=["NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"])
    signs_from: Moment


_Id = Annotated[Text, Field(min_length=1, max_length=64, examples=[_ID])]


class AuditQuery(PageQuery):
    """Which events: those that all of these are true of."""

    action: Action | None = None
    actor: Annotated[_Id, Field(description="The id of the user or client who did it.")] | None = None
    target: Annotated[_Id, Field(description="The id of what it was done to.")] | None = None
    since: Annotated[GivenMoment, Field(description="From then on.")] | None = None
    until: Annotated[GivenMoment, Field(description="Before then.")] | None = None


class AuditEvent(BaseModel):
    """Who did what, to what, and from where. `operator` is whoever runs the command line, `service` this service."""

    id: int
    occurred_at: Moment
    action: str = Field(examples=["user.disabled"])
    actor_kind: str = Field(examples=["user"])
    actor_id: str | None = Field(examples=[_ID])
    target_kind: str | None = Field(examples=["user"])
    target_id: str | None = Field(examples=[_ID])
    ip: str | None = Field(examples=["203.0.113.7"])
    user_agent: str | None = Field(examples=["Mozilla/5.0"])
    request_id: str | None = Field(examples=["5f0c9f1e6c0b4a0f8d1b7f3f7a9f2a11"])
    details: dict[str, Any] = Field(examples=[{"sessions": 2}])

    @classmethod
    def of(cls, event: RecordedEvent) -> Self:
        members = {name: getattr(event, name) for name in cls.model_fields}
        return cls(**members)
