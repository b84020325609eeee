"""The settings: read once from the environment or a `.env` file, checked whole, then passed on as one frozen value.

Nothing else in the service reads the environment, but `stores/tortoise_cli.py` for the `tortoise` command.
"""

import difflib
import os
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from auth_service.setting_values import (
    Address,
    Audiences,
    Networks,
    Origin,
    Origins,
    PostgreSQLURL,
    RedisURL,
    Scopes,
    Seconds,
    Secrets,
    between,
    is_loopback,
    split_address,
    split_items,
)

PREFIX = "AUTH_"
_ENV_FILE = ".env"
ACCESS_TOKEN_TTL_CEILING = timedelta(hours=1)
"""No setting can make an access token live longer: verifiers may forget a revocation after it (feed, `exp`)."""

_MAKE_A_KEY = "make one with: openssl rand -base64 32 | tr '+/' '-_'"
_REQUIRED = {
    "issuer": "the public origin of this service, like https://auth.example.com",
    "database_url": "like postgresql://user:password@host:5432/name",
    "redis_url": "like redis://host:6379/0",
    "key_encryption_keys": _MAKE_A_KEY,
}
_SAYING = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_pattern_mismatch": "must have from 1 to 64 characters, each a letter, a digit or one of . _ -",
}


class SettingsError(Exception):
    """One or more settings are wrong. `problems` maps each setting's full name to what is wrong with it."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        super().__init__("\n".join(f"{name}: {problem}" for name, problem in self.problems.items()))


class Settings(BaseSettings):
    """Every setting, checked. Each is read from `AUTH_<NAME>`, or from the file that `AUTH_<NAME>_FILE` names."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=_ENV_FILE,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
    )

    # First, because the checks of later fields ask for it.
    allow_insecure: Annotated[
        tuple[Literal["http_issuer", "evicting_redis"], ...], NoDecode, BeforeValidator(split_items)
    ] = Field(
        (),
        description="Refusals to lift, for a test bench: `http_issuer` (an issuer without TLS that is not loopback), "
        "`evicting_redis` (a Redis that may drop keys).",
    )
    issuer: Origin = Field(description="Public origin of this service, and the `iss` of its tokens. Required.")
    database_url: PostgreSQLURL = Field(
        description="PostgreSQL, as `postgresql://user:password@host:5432/name`. Required."
    )
    redis_url: RedisURL = Field(
        description="Redis: `redis://`, `redis+sentinel://` or `redis+cluster://`; `rediss` in place of `redis`: with "
        "TLS. Required."
    )
    key_encryption_keys: Secrets = Field(
        description="Keys that encrypt the private signing keys: the first encrypts, all decrypt. Each is 32 random "
        "bytes in URL-safe base64. Required."
    )
    audiences: Audiences = Field((), description="`aud` of the access tokens. Default: the issuer alone.")
    listen: Address = Field("127.0.0.1:8000", description="Public port.")
    internal_listen: Address = Field(
        "127.0.0.1:9000", description="Internal port: health, metrics, administration. Never expose it."
    )
    workers: int = Field(1, ge=1, le=64, description="Processes that serve.")
    max_connections: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="Open connections of the public port, per process, at most; fewer where the system allows a "
        "process fewer files. Every verifier keeps one open.",
    )
    access_token_ttl: Annotated[Seconds, between(1, int(ACCESS_TOKEN_TTL_CEILING.total_seconds()))] = Field(
        timedelta(seconds=600), description="Life of an access token, in seconds."
    )
    refresh_token_ttl: Annotated[Seconds, between(1, 31_536_000)] = Field(
        timedelta(seconds=604_800), description="Idle life of a session: seconds until an unused refresh token expires."
    )
    session_ttl: Annotated[Seconds, between(1, 31_536_000)] = Field(
        timedelta(seconds=2_592_000), description="Absolute life of a session in seconds; no refresh extends it."
    )
    refresh_replay_window: Annotated[Seconds, between(5, 300)] = Field(
        timedelta(seconds=30),
        description="Seconds in which a rotated refresh token is still answered. Shorter catches theft sooner, longer "
        "forgives slower networks.",
    )
    revocation_feed: Literal["public", "client"] = Field(
        "public",
        description="Who may follow the revocation feed: everybody, or only clients with the scope `revocations:read`.",
    )
    rsa_key_size: Literal[2048, 3072, 4096] = Field(2048, description="Bits of a new signing key.")
    key_rotation_interval: Annotated[Seconds, between(3600, 31_536_000)] = Field(
        timedelta(seconds=2_592_000),
        description="Seconds for which a signing key signs. A new value counts for keys that are yet to be "
        "made; `auth-service keys rotate` gives it to the standby too.",
    )
    allowed_origins: Origins = Field(
        (), description="Origins of the pages that may use the cookie transport; the issuer's own is always allowed."
    )
    trusted_proxies: Networks = Field((), description="Networks whose `X-Forwarded-For` is believed.")
    unthrottled_networks: Networks = Field(
        (),
        description="Networks whose addresses are not throttled each: an office behind one address, a load test. What "
        "may be tried on one account is limited there too.",
    )
    default_scopes: Scopes = Field(("profile",), description="Scopes that every user holds.")
    first_party_client_id: str = Field(
        "web", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="`client_id` of tokens from login and register."
    )
    access_token_email: bool = Field(False, description="Put `email` and `email_verified` into access tokens.")
    password_min_length: int = Field(12, ge=8, le=64, description="Code points of a new password, at least.")
    audit_retention: Annotated[Seconds, between(86_400, 315_360_000)] = Field(
        timedelta(days=90), description="Seconds that audit events are kept; at least a day."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["json", "console"] = Field("json", description="`json` for machines, `console` for people.")

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("rsa_key_size", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    @field_validator("key_encryption_keys")
    @classmethod
    def _encryption_keys(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not value:
            raise ValueError(f"at least one key is needed; {_MAKE_A_KEY}")
        for number, key in enumerate(value, start=1):
            text = key.get_secret_value()
            # By the alphabet too: the decoder skips what is not in it.
            if not re.fullmatch(r"[A-Za-z0-9_-]{43}=", text) or len(urlsafe_b64decode(text)) != 32:
                raise ValueError(f"item {number} must be 32 bytes in URL-safe base64; {_MAKE_A_KEY}")
        return value

    @field_validator("issuer")
    @classmethod
    def _secure_issuer(cls, value: str, info: ValidationInfo) -> str:
        allowed = "http_issuer" in info.data.get("allow_insecure", ())
        if value.startswith("http://") and not is_loopback(value) and not allowed:
            raise ValueError(
                "must be https:// unless it is a loopback address; AUTH_ALLOW_INSECURE=http_issuer lifts this"
            )
        return value

    @field_validator("internal_listen")
    @classmethod
    def _own_port(cls, value: str, info: ValidationInfo) -> str:
        port = split_address(value)[1]
        if port and port == split_address(info.data.get("listen", "localhost:0"))[1]:
            raise ValueError("must have a port of its own, another than AUTH_LISTEN")
        return value

    @property
    def access_token_audiences(self) -> tuple[str, ...]:
        return self.audiences or (self.issuer,)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # What stands nearer to the process wins: the environment, by value or by file, before the .env file.
        return (
            init_settings,
            _SecretFiles(settings_cls, os.environ),
            env_settings,
            _SecretFiles(settings_cls, dotenv_values(_ENV_FILE)),
            dotenv_settings,
        )


class _SecretFiles(PydanticBaseSettingsSource):
    """`AUTH_<NAME>_FILE`: the value is the content of a mounted file, without the white space around it."""

    def __init__(self, settings_cls: type[BaseSettings], names: Mapping[str, str | None]) -> None:
        super().__init__(settings_cls)
        self._names = names

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        path = self._names.get(f"{_full_name(field_name)}_FILE")
        try:
            return (Path(path).read_text("utf-8").strip() if path else None), field_name, False
        except (OSError, UnicodeDecodeError):
            return None, field_name, False  # `load_settings` reports it

    def __call__(self) -> dict[str, Any]:
        values = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in values.items() if value}


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process; `overrides` win over the environment.

    Raises SettingsError, which names everything that is wrong at once and never holds a value.
    """
    problems = _unreadable_files()
    if _ENV_FILE in problems:
        raise SettingsError(problems)  # nothing else can be said before it is read
    try:
        settings = Settings(**overrides)
    except ValidationError as exc:
        for error in exc.errors(include_url=False, include_input=False):
            problems.setdefault(_full_name(str(error["loc"][0])), _saying(error))
        raise SettingsError(problems) from None
    if problems:
        raise SettingsError(problems)
    return settings


def is_given(field_name: str) -> bool:
    """True if the environment or the `.env` file has a value for this setting, good or bad."""
    names = (_full_name(field_name), f"{_full_name(field_name)}_FILE")
    return any(source.get(name) for source in (os.environ, _dotenv()) for name in names)


def misspelt_names() -> dict[str, str]:
    """Names in the environment or the `.env` file that are no setting but look like one, and which one.

    Not an error: the verifier has a name of its own here, and Kubernetes sets AUTH_PORT beside a service called "auth".
    """
    known = [_full_name(name) + suffix for name in Settings.model_fields for suffix in ("", "_FILE")]
    strange = {name for source in (os.environ, _dotenv()) for name in source if name.startswith(PREFIX)}
    strange -= {*known, f"{PREFIX}AUDIENCE"}
    close = {name: difflib.get_close_matches(name, known, n=1, cutoff=0.85) for name in sorted(strange)}
    return {name: found[0] for name, found in close.items() if found}


def _full_name(field_name: str) -> str:
    return f"{PREFIX}{field_name.upper()}"


def _dotenv() -> Mapping[str, str | None]:
    try:
        return dotenv_values(_ENV_FILE)
    except (OSError, UnicodeDecodeError):
        return {}  # `load_settings` reports it


def _unreadable_files() -> dict[str, str]:
    """What is wrong with the `.env` file and with the files that `AUTH_<NAME>_FILE` name."""
    try:
        dotenv = dotenv_values(_ENV_FILE)
    except (OSError, UnicodeDecodeError) as exc:
        return {_ENV_FILE: f"this file cannot be read ({type(exc).__name__})"}
    problems = {}
    for field_name in Settings.model_fields:
        name = _full_name(field_name)
        for source in (os.environ, dotenv):
            path = source.get(f"{name}_FILE")
            if not path:
                continue
            if source.get(name):
                problems[name] = f"is given twice: set either {name} or {name}_FILE"
                continue
            try:
                if not Path(path).read_text("utf-8").strip():
                    problems[name] = f"the file that {name}_FILE names is empty"
            except (OSError, UnicodeDecodeError) as exc:
                problems[name] = f"the file that {name}_FILE names cannot be read ({type(exc).__name__})"
    return problems


def _saying(error: ErrorDetails) -> str:
    """What is wrong, in our words: those of the library may quote the value."""
    name, *place = error["loc"]
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return f"is required: {_REQUIRED[str(name)]}"
    if kind == "value_error":
        text = str(context["error"])
    elif kind == "literal_error":
        text = f"must be {context['expected']}"
    elif kind == "greater_than_equal":
        text = f"must be at least {context['ge']}"
    elif kind == "less_than_equal":
        text = f"must be at most {context['le']}"
    else:
        text = _SAYING.get(kind, "is not valid")
    number = next((part for part in place if isinstance(part, int)), None)
    return text if number is None else f"item {number + 1} {text}"
