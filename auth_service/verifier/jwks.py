"""The issuer's JWKS (RFC 7517) as keys to verify with. Fetching it is `key_source.py`'s concern.

A key that is not plainly one of ours is left out: the rest of the set stays usable, and a token that names the key
left out is refused.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

from auth_service.verifier.errors import MalformedToken
from auth_service.verifier.jws import decode_base64url, is_kid, json_object

_MIN_BITS, _MAX_BITS = 2048, 8192
# RFC 7518 §6.3.2 and §6.4: a set that publishes one of these has published a secret, so its key is anybody's.
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class UnusableKeySet(Exception):
    """The document is no JWKS, or holds no key that may verify our tokens."""


def parse_jwks(document: bytes, *, known: Mapping[str, RSAPublicKey]) -> dict[str, RSAPublicKey]:
    """The keys of a JWKS by `kid`; the objects in `known` are used again where the key is the same.

    Takes RSA keys of 2048 to 8192 bits with a `kid` of their own, for `RS256` signatures, without private members.
    Raises UnusableKeySet if the document is not strict JSON of the right shape, or no such key is in it.
    """
    try:
        members = json_object(document).get("keys")
    except MalformedToken as exc:
        raise UnusableKeySet(f"not a JWKS: {exc}") from None
    if not isinstance(members, list):
        raise UnusableKeySet("not a JWKS: no list of keys")
    jwks = [jwk for jwk in members if isinstance(jwk, dict)]
    named = Counter(jwk["kid"] for jwk in jwks if isinstance(jwk.get("kid"), str))
    keys = {}
    for jwk in jwks:
        kid = jwk.get("kid")
        # Two keys of one name: whichever was meant, the other would be accepted in its place.
        if isinstance(kid, str) and named[kid] == 1 and is_kid(kid) and _is_for_us(jwk):
            numbers = _numbers(jwk)
            if numbers is not None:
                same = known.get(kid)
                keys[kid] = same if same is not None and same.public_numbers() == numbers else numbers.public_key()
    if not keys:
        raise UnusableKeySet("it holds no usable key")
    return keys


def _is_for_us(jwk: dict[str, Any]) -> bool:
    operations = jwk.get("key_ops", ["verify"])
    return (
        jwk.get("kty") == "RSA"
        and jwk.get("use", "sig") == "sig"
        and jwk.get("alg", "RS256") == "RS256"
        and isinstance(operations, list)
        and "verify" in operations
        and _PRIVATE_MEMBERS.isdisjoint(jwk)
    )


def _numbers(jwk: dict[str, Any]) -> RSAPublicNumbers | None:
    modulus, exponent = _integer(jwk.get("n")), _integer(jwk.get("e"))
    if modulus is None or exponent is None or not _MIN_BITS <= modulus.bit_length() <= _MAX_BITS:
        return None
    # An even modulus or exponent is no RSA key; a huge exponent makes every check expensive.
    if modulus % 2 == 0 or exponent % 2 == 0 or not 3 <= exponent < 2**32:
        return None
    return RSAPublicNumbers(exponent, modulus)


def _integer(value: object) -> int | None:
    """A Base64urlUInt (RFC 7518 §2)."""
    if not isinstance(value, str):
        return None
    try:
        return int.from_bytes(decode_base64url(value.encode("ascii")), "big")
    except (MalformedToken, UnicodeEncodeError):
        return None
