"""What a setting may be: the types of their values, each of which says in our words what is wrong with one.

The settings themselves are in `settings.py`. No text here ever repeats a value: it may be a secret.
"""

import ipaddress
import re
import ssl
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from auth_service.redis_url import parse_redis_url


def split_items(value: object) -> object:
    """Split a list written as text: items separated by commas or white space."""
    return tuple(item for item in re.split(r"[\s,]+", value) if item) if isinstance(value, str) else value


def _origin(value: str) -> str:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError("is not an origin like https://app.example.com") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or value != f"{parts.scheme}://{parts.netloc}":
        raise ValueError("must be an origin like https://app.example.com, without a path or trailing slash")
    # RFC 6454 §6.2: a name beyond ASCII as xn--, no user name, and the scheme's own port left out.
    if not re.fullmatch(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]+)?", parts.netloc):
        raise ValueError("must be lower-case ASCII and without a user name, as browsers write an Origin")
    if port == {"http": 80, "https": 443}[parts.scheme]:
        raise ValueError("must leave out the port that its scheme has anyway, as browsers do")
    return value


def _network(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        network = ipaddress.ip_network(value)
    except ValueError:
        raise ValueError("must be an address or a network like 10.0.0.0/8, with no bit set after the mask") from None
    if network.prefixlen == 0:
        raise ValueError("must be networks of your own: every address is every client")
    return network


def _audience(value: str) -> str:
    if re.search(r'["\[\]]', value):  # a list in JSON, which would become names that nobody asks for
        raise ValueError('must not hold ", [ or ]: a list is written with commas or spaces, like orders,payments')
    if len(value) > 255 or not value.isprintable():  # what a verifier accepts in `aud`
        raise ValueError("must have at most 255 characters, all of which can be seen")
    return value


def _scope(value: str) -> str:
    if not re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+", value):  # RFC 6749 §3.3
        raise ValueError("must be printable ASCII without quote and backslash")
    if value.startswith("auth:") or value == "revocations:read":
        # Who holds such a scope gets it by asking: as a default it would make everybody an administrator.
        raise ValueError("opens this service itself: grant it with `auth-service users grant`, never to everybody")
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


_SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def _postgresql_url(value: SecretStr) -> SecretStr:
    parts, options = _url(value, ("postgresql", "postgres"), like="postgresql://user:password@host:5432/name")
    if not parts.hostname and not options.get("host"):
        raise ValueError("must name a host: postgresql://user:password@host:5432/name")
    # A misspelt option must not mean "without TLS" in silence.
    if not options.keys() <= {"host", "sslmode", "sslrootcert"}:
        raise ValueError("understands only the options host, sslmode and sslrootcert after the ?")
    if options.get("sslmode", "prefer") not in _SSLMODES:
        raise ValueError(f"sslmode must be one of {', '.join(_SSLMODES)}")
    if "sslrootcert" in options:
        try:
            ssl.create_default_context(cafile=options["sslrootcert"])
        except OSError as exc:
            raise ValueError(f"sslrootcert must name a readable PEM file ({type(exc).__name__})") from None
    return value


def _redis_url(value: SecretStr) -> SecretStr:
    parse_redis_url(value.get_secret_value())
    return value


def _url(value: SecretStr, schemes: tuple[str, ...], *, like: str) -> tuple[SplitResult, dict[str, str]]:
    try:
        parts = urlsplit(value.get_secret_value())
        parts.port  # noqa: B018 — reading it checks it
    except ValueError:
        raise ValueError(f"is not a URL like {like}; write what is special in a password as %XX") from None
    if parts.scheme not in schemes:
        raise ValueError(f"must be a URL like {like}")
    if parts.fragment or "@" in parts.path or "@" in parts.query:
        # A bare / ? or # in a password ends it early, and the rest of it would be taken for a host or a name.
        raise ValueError(f"is not a URL like {like}; write what is special in a password as %XX")
    return parts, dict(parse_qsl(parts.query, keep_blank_values=True))


def _whole_seconds(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, bool) or not isinstance(value, int | str) or not re.fullmatch(r"[0-9]{1,10}", str(value)):
        raise ValueError("must be a whole number of seconds")
    return timedelta(seconds=int(value))


def between(low: int, high: int) -> AfterValidator:
    def check(value: timedelta) -> timedelta:
        if not low <= value.total_seconds() <= high:
            raise ValueError(f"must be from {low} to {high} seconds")
        return value

    return AfterValidator(check)


Audiences = Annotated[tuple[Annotated[str, AfterValidator(_audience)], ...], NoDecode, BeforeValidator(split_items)]
Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(split_items)]
Networks = Annotated[
    tuple[Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)], ...], NoDecode, BeforeValidator(split_items)
]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, BeforeValidator(split_items)]
Scopes = Annotated[tuple[Annotated[str, AfterValidator(_scope)], ...], NoDecode, BeforeValidator(split_items)]
Address = Annotated[str, AfterValidator(_address)]
Origin = Annotated[str, AfterValidator(_origin)]
PostgreSQLURL = Annotated[SecretStr, AfterValidator(_postgresql_url)]
RedisURL = Annotated[SecretStr, AfterValidator(_redis_url)]
Seconds = Annotated[timedelta, BeforeValidator(_whole_seconds)]


def is_loopback(origin: str) -> bool:
    """True if `origin`'s host can only be this machine."""
    host = urlsplit(origin).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
