"""The claims of an access token (RFC 9068), and what must be true of them. The signature is `jws.py`'s concern."""

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from auth_service.verifier.errors import ExpiredToken, InvalidClaim

ACCESS_TOKEN_TYPES = frozenset({"at+jwt", "application/at+jwt"})
"""The `typ` values of RFC 9068 §2.1."""

MAX_LEEWAY = 30
"""Seconds of clock difference that may be forgiven at most."""

_MAX_STRING_LENGTH = 255
_SURROGATE = re.compile("[\ud800-\udfff]")
_LATEST = 253_402_300_799  # the last second of the year 9999: past it, datetime overflows


class AccessTokenClaims(NamedTuple):
    """What a verified access token says. Times are seconds since the epoch, as on the wire (RFC 7519 §2).

    `subject` is the stable identifier of the user, or of the client in a service token; `username` and `email` are for
    display. `session_id` is absent from a service token. `claims` holds every claim; one object serves all requests
    with this token, so change nothing inside it. A named tuple because it is made for every token that is seen first.
    """

    issuer: str
    subject: str
    audience: tuple[str, ...]
    client_id: str
    token_id: str
    issued_at: float
    expires_at: float
    scope: frozenset[str]
    session_id: str | None
    auth_time: float | None
    username: str | None
    email: str | None
    claims: Mapping[str, Any]

    def __reduce__(self) -> tuple[Any, ...]:
        # A view of a dict can be neither copied nor pickled.
        return _restored, (type(self), tuple(self[:-1]), dict(self.claims))

    def __repr__(self) -> str:
        return f"AccessTokenClaims(issuer={self.issuer!r}, subject={self.subject!r}, client_id={self.client_id!r}, ...)"

    @classmethod
    def parse(
        cls, payload: dict[str, Any], *, issuer: str, audience: Collection[str], now: float, leeway: float = 0
    ) -> Self:
        """Check the claims of a payload whose signature is good, as of `now`.

        One of `audience` must be in `aud`; an empty collection asks for no audience. `leeway` in seconds, up to 30.
        Raises InvalidClaim, and ExpiredToken only where everything else is right.
        """
        if not 0 <= leeway <= MAX_LEEWAY:
            raise ValueError(f"leeway must be from 0 to {MAX_LEEWAY} seconds")
        if text_claim(payload, "iss") != issuer:
            raise InvalidClaim("iss", "another issuer")
        recipients = _audience(payload)
        # A string is a collection too, of its letters, and `in` would find every part of it (PyJWT CVE-2024-53861).
        ours = (audience,) if isinstance(audience, str) else audience
        if ours and frozenset(recipients).isdisjoint(ours):
            raise InvalidClaim("aud", "not for us")
        issued_at, expires_at = time_claim(payload, "iat"), time_claim(payload, "exp")
        claims = cls(  # by their places: thirteen names would take longer than half of the checks
            issuer,
            text_claim(payload, "sub"),
            recipients,
            text_claim(payload, "client_id"),
            text_claim(payload, "jti"),
            issued_at,
            expires_at,
            _scope(payload),
            text_claim(payload, "sid") if "sid" in payload else None,
            time_claim(payload, "auth_time") if "auth_time" in payload else None,
            text_claim(payload, "preferred_username") if "preferred_username" in payload else None,
            text_claim(payload, "email") if "email" in payload else None,
            MappingProxyType(payload),
        )
        not_before = time_claim(payload, "nbf") if "nbf" in payload else claims.issued_at
        if max(claims.issued_at, not_before) > now + leeway:
            raise InvalidClaim("iat" if claims.issued_at > now + leeway else "nbf", "in the future")
        if claims.expires_at + leeway <= now:
            raise ExpiredToken("exp has passed")
        return claims


def _restored(kind: type[AccessTokenClaims], values: tuple[Any, ...], claims: dict[str, Any]) -> AccessTokenClaims:
    return kind._make((*values, MappingProxyType(claims)))


def text_claim(payload: dict[str, Any], name: str) -> str:
    """The non-empty string claim `name`, of at most 255 characters. Raises InvalidClaim."""
    value = payload.get(name)
    if not isinstance(value, str):
        raise InvalidClaim(name, "missing or not a string")
    if value.isascii() and 0 < len(value) <= _MAX_STRING_LENGTH:
        return value  # nearly always
    return _checked_text(value, name)


def time_claim(payload: dict[str, Any], name: str) -> float:
    """The NumericDate claim `name` (RFC 7519 §2), in seconds since the epoch. Raises InvalidClaim."""
    value = payload.get(name)
    if type(value) is not int and type(value) is not float:  # isinstance would take True for a number
        raise InvalidClaim(name, "missing or not a number")
    if not 0 <= value <= _LATEST:
        raise InvalidClaim(name, "out of range")
    return value


def _checked_text(value: str, name: str) -> str:
    if not 0 < len(value) <= _MAX_STRING_LENGTH:
        raise InvalidClaim(name, "empty or too long")
    if not value.isascii() and _SURROGATE.search(value):
        raise InvalidClaim(name, "not a Unicode string")
    return value


def _audience(payload: dict[str, Any]) -> tuple[str, ...]:
    value = payload.get("aud")
    recipients = [value] if isinstance(value, str) else value
    if not isinstance(recipients, list) or not recipients:
        raise InvalidClaim("aud", "missing or not a string or list")
    for recipient in recipients:
        if not isinstance(recipient, str):
            raise InvalidClaim("aud", "not a list of strings")
        _checked_text(recipient, "aud")
    return tuple(recipients)


def _scope(payload: dict[str, Any]) -> frozenset[str]:
    value = payload.get("scope", "")
    if not isinstance(value, str) or len(value) > 4096 or (not value.isascii() and _SURROGATE.search(value)):
        raise InvalidClaim("scope", "not a string of scopes")
    return frozenset(filter(None, value.split(" ")))
