"""A strict reader of compact JWS (RFC 7515 §3.1), RS256 only. What the claims must say is in `claims.py`.

General JOSE libraries accept more than this service ever issues: other algorithms, padding, duplicate members,
unknown critical headers. Every one of those freedoms has been a vulnerability somewhere, so this reader has none.
"""

import binascii
import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Never, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from auth_service.verifier.errors import BadSignature, MalformedToken

MAX_LENGTH = 8192
"""Characters. A token of ours is under 1 KiB; the bound comes before any decoding (Authlib CVE-2025-61920)."""

_MAX_KID_LENGTH = 128

# `crit` names extensions that must be understood, and we understand none (RFC 7515 §4.1.11); `b64` changes what is
# signed (RFC 7797 §3); `zip` is a decompression bomb's fuse. The others say where a key is to be found, or what else is
# in the payload: the issuer writes none of them, a key is found by its `kid` alone, and readers differ on them.
_FORBIDDEN_HEADERS = frozenset({"b64", "crit", "cty", "jku", "jwk", "x5c", "x5t", "x5t#S256", "x5u", "zip"})

_PADDING = PKCS1v15()
_SHA256 = SHA256()


@dataclass(slots=True)
class CompactJWS:
    """A compact JWS whose form and header are acceptable. Nothing in it is trusted before `payload`."""

    kid: str
    _signing_input: bytes
    _payload: bytes
    _signature: bytes

    @classmethod
    def parse(cls, compact: str | bytes, *, types: Collection[str]) -> Self:
        """Read `compact`, whose header must say `RS256`, a `kid`, and a `typ` that is one of `types`.

        Raises MalformedToken for everything else. Checks no signature.
        """
        if len(compact) > MAX_LENGTH:
            raise MalformedToken("too long")
        try:
            signing_input, _, signature = (compact.encode("ascii") if isinstance(compact, str) else compact).rpartition(
                b"."
            )
            header, payload = signing_input.split(b".")
        except ValueError:  # covers UnicodeEncodeError
            raise MalformedToken("not three base64url segments") from None
        typ, kid = _header(header)
        if typ not in types:
            raise MalformedToken("typ is not the kind expected here")
        return cls(kid, signing_input, decode_base64url(payload), decode_base64url(signature))

    def payload(self, key: RSAPublicKey) -> dict[str, Any]:
        """The claims, once the signature is found to be `key`'s. Raises BadSignature, MalformedToken."""
        try:
            key.verify(self._signature, self._signing_input, _PADDING, _SHA256)
        except InvalidSignature:
            raise BadSignature("signature does not match") from None
        return json_object(self._payload)


@lru_cache(maxsize=64)
def _header(segment: bytes) -> tuple[str, str]:
    """`typ` and `kid` of an acceptable header: the same for every token that one key signs. Raises MalformedToken."""
    header = json_object(decode_base64url(segment))
    if header.get("alg") != "RS256":
        raise MalformedToken("alg is not RS256")
    if not _FORBIDDEN_HEADERS.isdisjoint(header):
        raise MalformedToken("a header parameter that is never acceptable")
    typ, kid = header.get("typ"), header.get("kid")
    if not isinstance(typ, str):
        raise MalformedToken("typ is not the kind expected here")
    if not isinstance(kid, str) or not is_kid(kid):
        raise MalformedToken("kid is not a short ASCII string")
    return typ, kid


def is_kid(text: str) -> bool:
    """True for what may name a key here: 1 to 128 ASCII characters. Ours are 43: an RFC 7638 thumbprint."""
    return 0 < len(text) <= _MAX_KID_LENGTH and text.isascii()


def decode_base64url(segment: bytes) -> bytes:
    """Decode base64url without padding, refusing a second spelling of the same bytes (RFC 4648 §3.5).

    Raises MalformedToken for that, for any other character, and for nothing at all.
    """
    if not segment or segment[-1] not in _LAST[len(segment) % 4]:
        raise MalformedToken("a segment is not base64url")
    try:
        return binascii.a2b_base64(segment.translate(_TO_BASE64) + b"=" * (-len(segment) % 4), strict_mode=True)
    except ValueError:
        raise MalformedToken("a segment is not base64url") from None


_BASE64URL = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
# What the last character may be, by how many there are modulo four: its bits that are not used must be zero. One
# character alone holds no byte.
_LAST = (_BASE64URL, b"", _BASE64URL[::16], _BASE64URL[::4])
# What is not base64url becomes what is not base64 either, `+` and `/` and `=` among it.
_TO_BASE64 = bytes(byte if byte in _BASE64URL else ord("!") for byte in range(256)).translate(
    bytes.maketrans(b"-_", b"+/")
)


def json_object(data: bytes) -> dict[str, Any]:
    """The members of a strict JSON object: UTF-8, no duplicate member, finite numbers. Raises MalformedToken."""
    try:
        text = data.decode("utf-8").strip(" \t\n\r")
        value, end = _DECODER.raw_decode(text)  # `decode` looks for white space with two regular expressions
    except RecursionError:
        raise MalformedToken("nested too deeply") from None
    except ValueError:  # covers JSONDecodeError, UnicodeDecodeError, and integers with too many digits
        raise MalformedToken("a segment is not strict JSON") from None
    if end != len(text) or not isinstance(value, dict):
        raise MalformedToken("a segment is not one JSON object")
    return value


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _refuse_constant(_name: str) -> Never:
    raise ValueError("NaN and Infinity are not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("number out of range")
    return number


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_members, parse_constant=_refuse_constant, parse_float=_finite, strict=True
)
