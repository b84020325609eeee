"""Scopes (RFC 6749 §3.3): how they are written, which are privileged, and which a caller is given."""

import re
from collections.abc import Iterable

MAX_LENGTH = 1024
PATTERN = r"^([\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*)?$"
"""Of a space-separated list, as a regular expression of JSON Schema and of Python."""


def is_valid(scope: str) -> bool:
    """True for one scope token of RFC 6749 §3.3."""
    return re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+", scope) is not None


def split(text: str) -> frozenset[str]:
    """The scopes of a space-separated list."""
    return frozenset(text.split())


def join(scopes: Iterable[str]) -> str:
    """The one spelling of a set of scopes: sorted, separated by a space."""
    return " ".join(sorted(scopes))


def is_privileged(scope: str) -> bool:
    """True for the scopes that open this service itself: only ever given when asked for, and only to `aud` = `iss`."""
    return scope.startswith("auth:") or scope == "revocations:read"


def grantable(asked: str | None, held: frozenset[str]) -> frozenset[str]:
    """What a login is given: what was asked for and is held. Asked for nothing: all that is held and not privileged."""
    if asked is None:
        return frozenset(scope for scope in held if not is_privileged(scope))
    return split(asked) & held
