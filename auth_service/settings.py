"""The settings: read once from the environment or a `.env` file, checked whole, then passed on as one frozen value.

Nothing else in the service reads the environment.
"""

import ipaddress
import os
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX = "AUTH_"
ACCESS_TOKEN_TTL_CEILING = timedelta(hours=1)
"""No setting can make an access token live longer: verifiers may forget a revocation after it (feed, `exp`)."""


class SettingsError(Exception):
    """One or more settings are wrong. `problems` maps each setting's full name to what is wrong with it."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        super().__init__("\n".join(f"{name}: {problem}" for name, problem in self.problems.items()))


def _items(value: object) -> object:
    """Split a list written as text: items separated by commas or white space."""
    return tuple(item for item in re.split(r"[\s,]+", value) if item) if isinstance(value, str) else value


Items = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_items)]
Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_items)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_items)]


def _origin(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or value != f"{parts.scheme}://{parts.netloc}":
        raise ValueError("must be an origin like https://app.example.com, without a path or trailing slash")
    if "@" in parts.netloc or value != value.lower():
        raise ValueError("must be lower case and without a user name, as browsers write an Origin")
    return value


def _address(value: str) -> str:
    host, port = split_address(value)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if host != "localhost":
            raise ValueError("must be ADDRESS:PORT with an IP address, for example 0.0.0.0:8000") from None
    if not 0 <= port <= 65535:
        raise ValueError("the port must be from 0 to 65535")
    return value


def split_address(value: str) -> tuple[str, int]:
    """Host and port of `127.0.0.1:8000` or `[::1]:8000`."""
    host, colon, port = value.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port):
        raise ValueError("must be ADDRESS:PORT, for example 127.0.0.1:8000")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _scopes(value: tuple[str, ...]) -> tuple[str, ...]:
    for scope in value:
        # RFC 6749 §3.3
        if not re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+", scope):
            raise ValueError("a scope may hold printable ASCII except space, quote and backslash")
    return value


def _scheme(*allowed: str) -> Callable[[SecretStr], SecretStr]:
    def check(value: SecretStr) -> SecretStr:
        try:
            parts = urlsplit(value.get_secret_value())
            parts.port  # noqa: B018 — reading it checks it
        except ValueError:
            raise ValueError("is not a URL") from None
        if parts.scheme not in allowed or not parts.hostname:
            raise ValueError(f"must be a URL that starts with {' or '.join(f'{scheme}://' for scheme in allowed)}")
        return value

    return check


def _whole_seconds(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, bool) or not isinstance(value, int | str) or not re.fullmatch(r"[0-9]{1,10}", str(value)):
        raise ValueError("must be a whole number of seconds")
    return timedelta(seconds=int(value))


def _between(low: int, high: int) -> AfterValidator:
    def check(value: timedelta) -> timedelta:
        if not low <= value.total_seconds() <= high:
            raise ValueError(f"must be from {low} to {high} seconds")
        return value

    return AfterValidator(check)


Seconds = Annotated[timedelta, BeforeValidator(_whole_seconds)]


class Settings(BaseSettings):
    """Every setting, checked. Each is read from `AUTH_<NAME>`, or from the file that `AUTH_<NAME>_FILE` names."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
    )

    # First, because the checks of later fields ask for it.
    allow_insecure: Annotated[
        tuple[Literal["http_issuer", "evicting_redis"], ...], NoDecode, BeforeValidator(_items)
    ] = Field(
        (),
        description="Refusals to lift, for a test bench: `http_issuer` (an issuer without TLS that is not loopback), "
        "`evicting_redis` (a Redis that may drop keys).",
    )
    issuer: Annotated[str, AfterValidator(_origin)] = Field(
        description="Public origin of this service, and the `iss` of its tokens. Required."
    )
    database_url: Annotated[SecretStr, AfterValidator(_scheme("postgres", "postgresql"))] = Field(
        description="PostgreSQL, as `postgresql://user:password@host:5432/name`. Required."
    )
    redis_url: Annotated[SecretStr, AfterValidator(_scheme("redis", "rediss"))] = Field(
        description="Redis, as `redis://` or `rediss://`. Required."
    )
    key_encryption_keys: Secrets = Field(
        description="Keys that encrypt the private signing keys: the first encrypts, all decrypt. Each is 32 random "
        "bytes in URL-safe base64. Required."
    )
    audiences: Items = Field((), description="`aud` of the access tokens. Default: the issuer alone.")
    listen: Annotated[str, AfterValidator(_address)] = Field("127.0.0.1:8000", description="Public port.")
    internal_listen: Annotated[str, AfterValidator(_address)] = Field(
        "127.0.0.1:9000", description="Internal port: health, metrics, administration. Never expose it."
    )
    workers: int = Field(1, ge=1, le=64, description="Processes that serve.")
    access_token_ttl: Annotated[Seconds, _between(1, int(ACCESS_TOKEN_TTL_CEILING.total_seconds()))] = Field(
        timedelta(seconds=600), description="Life of an access token, in seconds."
    )
    refresh_token_ttl: Annotated[Seconds, _between(1, 31_536_000)] = Field(
        timedelta(seconds=604_800), description="Idle life of a session: seconds until an unused refresh token expires."
    )
    session_ttl: Annotated[Seconds, _between(1, 31_536_000)] = Field(
        timedelta(seconds=2_592_000), description="Absolute life of a session in seconds; no refresh extends it."
    )
    refresh_replay_window: Annotated[Seconds, _between(5, 300)] = Field(
        timedelta(seconds=30),
        description="Seconds in which a rotated refresh token is still answered. Shorter catches theft sooner, longer "
        "forgives slower networks.",
    )
    rsa_key_size: Literal[2048, 3072, 4096] = Field(2048, description="Bits of a new signing key.")
    allowed_origins: Annotated[Items, AfterValidator(lambda origins: tuple(map(_origin, origins)))] = Field(
        (), description="Origins of the pages that may use the cookie transport; the issuer's own is always allowed."
    )
    trusted_proxies: Networks = Field((), description="Networks whose `X-Forwarded-For` is believed.")
    default_scopes: Annotated[Items, AfterValidator(_scopes)] = Field(
        ("profile",), description="Scopes that every user holds."
    )
    first_party_client_id: str = Field(
        "web", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="`client_id` of tokens from login and register."
    )
    access_token_email: bool = Field(False, description="Put `email` and `email_verified` into access tokens.")
    password_min_length: int = Field(12, ge=8, le=64, description="Code points of a new password, at least.")
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

    @field_validator("trusted_proxies")
    @classmethod
    def _not_everyone(cls, value: tuple[IPv4Network | IPv6Network, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
        if any(network.prefixlen == 0 for network in value):
            raise ValueError("must name your proxies' networks: to trust every address is to trust every client")
        return value

    @field_validator("key_encryption_keys")
    @classmethod
    def _encryption_keys(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        mend = "make one with: openssl rand -base64 32 | tr '+/' '-_'"
        if not value:
            raise ValueError(f"at least one key is needed; {mend}")
        for key in value:
            try:
                size = len(urlsafe_b64decode(key.get_secret_value()))
            except ValueError:
                size = 0
            if size != 32:
                raise ValueError(f"each must be 32 bytes in URL-safe base64; {mend}")
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
        return init_settings, _SecretFiles(settings_cls), env_settings, dotenv_settings


class _SecretFiles(PydanticBaseSettingsSource):
    """`AUTH_<NAME>_FILE`: the value is the content of a mounted file, without the line end."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        path = _secret_file(field_name)
        try:
            return (path.read_text("utf-8").strip() if path else None), field_name, False
        except (OSError, UnicodeDecodeError):
            return None, field_name, False  # `load_settings` reports it

    def __call__(self) -> dict[str, Any]:
        values = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in values.items() if value is not None}


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process; `overrides` win over the environment.

    Raises SettingsError, which names everything that is wrong at once and never holds a value.
    """
    problems = _unreadable_secret_files()
    try:
        settings = Settings(**overrides)
    except ValidationError as exc:
        for error in exc.errors(include_url=False, include_input=False, include_context=False):
            name = f"{PREFIX}{str(error['loc'][0]).upper()}"
            message = "is required" if error["type"] == "missing" else error["msg"].removeprefix("Value error, ")
            problems.setdefault(name, message)
        raise SettingsError(problems) from None
    if problems:
        raise SettingsError(problems)
    return settings


def _secret_file(field_name: str) -> Path | None:
    name = f"{PREFIX}{field_name.upper()}_FILE"
    path = os.environ.get(name) or dotenv_values(".env").get(name)
    return Path(path) if path else None


def _unreadable_secret_files() -> dict[str, str]:
    problems = {}
    for field_name in Settings.model_fields:
        path = _secret_file(field_name)
        if path is not None:
            try:
                path.read_text("utf-8")
            except (OSError, UnicodeDecodeError) as exc:
                name = f"{PREFIX}{field_name.upper()}"
                problems[name] = f"the file that {name}_FILE names cannot be read ({type(exc).__name__})"
    return problems


def is_loopback(origin: str) -> bool:
    """True if `origin`'s host can only be this machine."""
    host = urlsplit(origin).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
