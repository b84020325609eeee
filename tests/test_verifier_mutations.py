"""A hundred thousand changed tokens: those are accepted that were signed as they stand and keep every promise, and no
other; whatever is accepted, PyJWT and joserfc accept with the same claims.

`TEST_CAMPAIGN=n` runs n seeds more, of 10,000 tokens each. Chosen forgeries are in `test_verifier_tokens.py`.
"""

import hmac
import json
import math
import os
import random
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt as joserfc_jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey
from joserfc.jws import JWSRegistry
from joserfc.jwt import JWTClaimsRegistry

from auth_service.verifier import (
    BadSignature,
    ExpiredToken,
    InvalidClaim,
    InvalidToken,
    MalformedToken,
    UnknownKey,
    Verifier,
)
from auth_service.verifier.testing import FakeIssuer
from tests.support.forgery import ALPHABET, Forger, Signer, forger_of
from tests.support.stores import ISSUER
from tests.support.tokens import base64url

_TOKENS: Final = 10_000
_SEEDS = range(10 + int(os.environ.get("TEST_CAMPAIGN") or 0))
_AUDIENCE: Final = "orders"
_REQUIRED: Final = ["iss", "aud", "sub", "client_id", "jti", "iat", "exp"]
_DAY: Final = 86_400
"""Seconds. No time in a token is nearer than this to the moment of the test, so that no oracle's clock, nor its way of
rounding, decides: that is for the tables of `test_verifier_tokens.py`."""


@pytest.fixture(scope="module")
def attackers_key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


@pytest.mark.parametrize("seed", _SEEDS)
async def test_a_changed_token_is_accepted_only_if_it_keeps_every_promise(
    seed: int, attackers_key: RSAPrivateKey
) -> None:
    issuer = FakeIssuer(ISSUER, audience=_AUDIENCE)
    now = int(issuer.clock.time())
    honest = {"scope": "orders:read", "username": "ada", "audience": ["orders", "billing"]}
    forger = forger_of(issuer, **honest, iat=now - _DAY, auth_time=now - _DAY, exp=now + _DAY)
    mutations = _Mutations(forger, attackers_key, seed)
    others = _Others(forger.key.public_key(), now)
    met: Counter[type[InvalidToken] | None] = Counter()
    async with issuer.verifier() as verifier:
        for number, text in enumerate(mutations.texts(_TOKENS)):
            where = f"seed {seed}, number {number}: {text!r}"
            # RSASSA-PKCS1-v1_5 is deterministic: what was not signed as it stands has no good signature.
            promised = _promised(text, issuer.kid, now) if text in mutations.signed else None
            outcome, claims = await _verdict(verifier, text)
            met[outcome] += 1
            # As text: 1, 1.0 and True are equal in Python.
            assert repr(claims) == repr(promised), f"{outcome}: {where}"
            if claims is None:
                continue
            assert repr(others.pyjwt(text)) == repr(claims), where
            assert repr(others.joserfc(text)) == repr(claims), where
    least = {
        None: 1_000,
        MalformedToken: 2_000,
        BadSignature: 1_000,
        InvalidClaim: 400,
        UnknownKey: 20,
        ExpiredToken: 5,
    }
    assert all(met[outcome] >= count for outcome, count in least.items()), met
    # One fetch to open with, and one for all unknown keys: nothing in any token led to another.
    assert sorted(issuer.requests).count("/.well-known/jwks.json") == 2
    assert len(issuer.requests) == 4


def test_the_oracle_accepts_what_is_honest_and_refuses_what_is_not() -> None:
    """Or it would only repeat the verifier."""
    issuer = FakeIssuer(ISSUER, audience=_AUDIENCE)
    now = int(issuer.clock.time())
    forger = forger_of(issuer, scope="orders:read")
    assert _promised(forger.honest, issuer.kid, now) == forger.claims
    assert _promised(forger.honest, "another key", now) is None
    assert _promised(forger.honest, issuer.kid, now + 700) is None
    assert _promised(forger.honest + "=", issuer.kid, now) is None
    for change in ({"aud": "order"}, {"iss": ISSUER + "/"}, {"exp": True}, {"sub": "\ud800"}, {"jti": ""}, {"sid": 1}):
        assert _promised(forger.changed({"set": change}, part="claims"), issuer.kid, now) is None, change


async def _verdict(verifier: Verifier, text: str) -> tuple[type[InvalidToken] | None, dict[str, Any] | None]:
    """The claims, or why they are refused. Anything else that is raised fails the test: Unavailable too."""
    try:
        return None, dict((await verifier.verify(text)).claims)
    except InvalidToken as refused:
        return type(refused), None


class _Others:
    """Two libraries that verify the same tokens. What they refuse fails the test."""

    def __init__(self, public_key: RSAPublicKey, now: int) -> None:
        self._public_key = public_key
        self._rsa_key = RSAKey.import_key(
            public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")
        )
        self._registry = JWSRegistry(algorithms=["RS256"], strict_check_header=False)
        self._registry.max_header_length = self._registry.max_payload_length = 8192  # as ours, which is for all of it
        demands: dict[str, Any] = {name: {"essential": True} for name in _REQUIRED}
        demands |= {"iss": {"essential": True, "value": ISSUER}, "aud": {"essential": True, "value": _AUDIENCE}}
        self._claims_registry = JWTClaimsRegistry(now=now, leeway=0, **demands)

    def pyjwt(self, text: str) -> dict[str, Any]:
        try:
            return jwt.decode(
                text,
                self._public_key,
                ["RS256"],
                options={"require": _REQUIRED, "strict_aud": False},
                audience=_AUDIENCE,
                issuer=ISSUER,
            )
        except jwt.InvalidTokenError as exc:
            pytest.fail(f"PyJWT refuses {text}: {exc}")

    def joserfc(self, text: str) -> dict[str, Any]:
        try:
            token = joserfc_jwt.decode(text, self._rsa_key, ["RS256"], self._registry)
            self._claims_registry.validate(token.claims)
        except JoseError as exc:
            pytest.fail(f"joserfc refuses {text}: {exc}")
        return token.claims


class _Mutations:
    """Variations of one honest token. `signed` are those that its issuer's key has signed as they stand.

    Signing is the slow part, so two out of three are changes to the text of one that was signed.
    """

    def __init__(self, forger: Forger, attackers_key: RSAPrivateKey, seed: int) -> None:
        self.signed: set[str] = {forger.honest}
        self._forger = forger
        self._random = random.Random(seed)  # noqa: S311 — the same ones in every run
        self._signers = _signers(forger, attackers_key)
        self._values = _values(forger.now)
        past, future = forger.now - _DAY, forger.now + _DAY
        self._likely = _LIKELY | {"exp": (past, past + 0.5, 0, future), "nbf": (past, future), "iat": (past, future)}

    def texts(self, count: int) -> Iterator[str]:
        latest = earlier = self._forger.honest
        yield latest
        for number in range(1, count):
            if number % 3 == 0:
                earlier, latest = latest, self._newly_signed()
                yield latest
            else:
                yield self._changed_text(latest, earlier)

    def _newly_signed(self) -> str:
        chance, choose = self._random.random, self._random.choice
        header, claims = self._forger.header, self._forger.claims
        if chance() < 0.6:
            for _change in range(self._random.randint(1, 2)):
                self._change(claims, choose((*claims, *_OTHER_CLAIMS)))
        if chance() < 0.2:
            self._change(header, choose((*header, *_OTHER_HEADERS)))
        signed = f"{self._segment(header)}.{self._segment(claims)}"
        if chance() < 0.9:
            text = f"{signed}.{base64url(self._forger.sign(signed.encode('utf-8', 'surrogatepass')))}"
            self.signed.add(text)
            return text
        return f"{signed}.{base64url(choose(self._signers)(signed.encode()))}"

    def _change(self, members: dict[str, Any], name: str) -> None:
        if self._random.random() < 0.2:
            members.pop(name, None)
        elif self._random.random() < 0.3:
            members[name] = self._random.choice(self._likely.get(name, self._values))
        else:
            members[name] = self._random.choice(self._values)

    def _segment(self, members: dict[str, Any]) -> str:
        """`members` in one of the ways to spell them, some of which are none."""
        chance, choose = self._random.random, self._random.choice
        items = list(members.items())
        self._random.shuffle(items)
        text = json.dumps(
            dict(items),
            ensure_ascii=choose([True, False]),
            indent=choose([None, None, 0, 1, "\t"]),
            separators=choose([None, (",", ":"), (" , ", " : ")]),
        )
        if chance() < 0.06:
            text = choose(
                [
                    f" {text}\n",
                    f"{text}x",
                    text + text,
                    f"\ufeff{text}",
                    text.replace("e", "\\u0065"),
                    text[:-1],
                    text.replace('"', '"\t', 1),
                    f"[{text}]",
                ]
            )
        if chance() < 0.06 and items:
            text = f"{{{json.dumps(choose(items)[0])}: {json.dumps(choose(self._values))}, {text.lstrip()[1:]}"
        if chance() < 0.06:
            literal = choose(
                ["NaN", "-Infinity", "1e999", "1E400", "01", "1.", "9" * 5_000, "[" * 3_000, "[" * 99 + "]" * 99]
            )
            text = text.replace("}", f', "y": {literal}}}', 1)
        segment = base64url(text.encode("utf-8", "surrogatepass" if chance() < 0.9 else "replace"))
        if chance() < 0.04:
            segment = choose(
                [segment + "=", segment + "A", f"{segment}\n", segment[:-1] + choose(ALPHABET), segment.lower()]
            )
        return segment

    def _changed_text(self, text: str, other: str) -> str:
        choose = self._random.choice
        place = self._random.randrange(len(text))
        character, rest = text[place], text[place + 1 :]
        segments, others = text.split("."), other.split(".")
        swapped = self._random.randrange(3)
        bit = self._random.randrange(6)
        flipped = ALPHABET[ALPHABET.index(character) ^ 1 << bit] if character in ALPHABET else "-"
        return str(
            choose(
                [
                    text,
                    text[:place] + flipped + rest,
                    text[:place] + choose(ALPHABET + "=. +/\n\0%é\u0660\uff0e\ud800") + rest,
                    text[:place] + rest,
                    text[:place] + choose(ALPHABET + "=.") + character + rest,
                    text[:place],
                    text[place:],
                    text[:-1] + choose(ALPHABET),
                    text + choose(["=", "==", "A", ".", ".A", "\n", " ", text]),
                    choose(["=", ".", "\n", " ", "Bearer ", "\ufeff"]) + text,
                    text.swapcase(),
                    ".".join(self._random.sample(segments, 3)) if len(segments) == 3 else text + ".",
                    ".".join(segments[:swapped] + others[swapped : swapped + 1] + segments[swapped + 1 :]),
                    ".".join(segment + "=" * (place == swapped) for place, segment in enumerate(segments)),
                ]
            )
        )


_OTHER_CLAIMS: Final = ("nbf", "email", "email_verified", "extra", "cnf", "", "ä", "__proto__", "exp ", "SUB")
_REGISTERED_HEADERS: Final = ("crit", "cty", "jku", "jwk", "x5c", "x5t", "x5t#S256", "x5u", "b64", "zip")
"""Parameters of RFC 7515 §4.1, RFC 7797 and RFC 7516 that no token of ours has."""

_OTHER_HEADERS: Final = (*_REGISTERED_HEADERS, "enc", "epk", "p2c", "nonce", "x", "", "ALG")
_LIKELY: Final[dict[str, tuple[Any, ...]]] = {
    "alg": ("RS256", "none", "HS256", "RS512", "PS256", "rs256"),
    "typ": ("at+jwt", "application/at+jwt", "AT+JWT", "rt+jwt", "JWT"),
    "kid": ("another key", "k" * 129, "../key", "' OR 1=1 --"),
    "aud": ("orders", ["orders"], ["stock", "orders"], "order", ["billing"], ["orders", 7], "billing orders"),
    "iss": (ISSUER, f"{ISSUER}/", [ISSUER], "https://auth.tes"),
    "crit": ([], ["exp"], ["b64"]),
    "b64": (False, True),
    "zip": ("DEF",),
    "jwk": ({"kty": "RSA", "n": "AQAB", "e": "AQAB"},),
    "scope": ("", "orders:read", "a b  c", "orders:read\torders:write", "x" * 4_097),
}


def _values(now: int) -> tuple[Any, ...]:
    texts = ("", "x", "ä", "\0", "\ud83d\ude00", "\ud800", "x\udfffy", "x" * 255, "x" * 256, str(now), ISSUER, "orders")
    numbers = (0, 1, -1, 1.5, -0.0, 10**30, -(10**30), 1e300, 253_402_300_799, 253_402_300_800, 2**53 + 1)
    times = (now - _DAY, now + _DAY, now - _DAY - 0.5, now + _DAY + 0.25, (now + _DAY) * 1_000)
    others: tuple[Any, ...] = (
        None,
        True,
        False,
        [],
        ["orders"],
        [1],
        [[]],
        {},
        {"a": {"b": [1, 2.5, None]}},
        ["x"] * 50,
    )
    return (*texts, *numbers, *times, *others)


def _signers(forger: Forger, attackers_key: RSAPrivateKey) -> list[Signer]:
    """Ways to sign that are not the issuer's."""
    key = forger.key
    public_pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return [
        lambda signed: attackers_key.sign(signed, PKCS1v15(), hashes.SHA256()),
        lambda signed: key.sign(signed, PKCS1v15(), hashes.SHA512()),
        lambda signed: key.sign(signed, PSS(MGF1(hashes.SHA256()), 32), hashes.SHA256()),
        lambda signed: forger.sign(signed[::-1]),
        lambda signed: hmac.digest(public_pem, signed, "sha256"),
        lambda signed: bytes(256),
        lambda signed: b"",
    ]


def _promised(text: str, kid: str, now: int) -> dict[str, Any] | None:
    """The claims of `text` if a verifier may accept it, whatever its signature, by the security checklist; else None.

    Written from lines V1 to V8 of that list alone, and in another way than the verifier: nothing of it is used here.
    """
    if len(text) > 8192 or text.count(".") != 2 or not set(text) <= set(ALPHABET + "."):
        return None
    try:
        head, body, signature = (b64decode(part + "=" * (-len(part) % 4), b"-_", True) for part in text.split("."))
        header, claims = (json.loads(part.decode("utf-8"), object_pairs_hook=_once) for part in (head, body))
    except (ValueError, RecursionError):
        return None
    if ".".join(map(base64url, (head, body, signature))) != text or not signature:
        return None
    if not isinstance(header, dict) or not isinstance(claims, dict) or not _is_finite([header, claims]):
        return None
    if header.keys() & set(_REGISTERED_HEADERS) or (header.get("alg"), header.get("kid")) != ("RS256", kid):
        return None
    if header.get("typ") not in ("at+jwt", "application/at+jwt"):
        return None
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    texts = [*audiences, *(claims.get(name) for name in ("iss", "sub", "client_id", "jti"))]
    texts += [claims[name] for name in ("sid", "preferred_username", "email") if name in claims]
    times = [claims.get("iat"), claims.get("exp"), *(claims[name] for name in ("nbf", "auth_time") if name in claims)]
    scope = claims.get("scope", "")
    kept = (
        all(type(value) is str and 1 <= len(value) <= 255 and _is_unicode(value) for value in texts)
        and all(type(value) in (int, float) and 0 <= value < 253_402_300_800 for value in times)
        and type(scope) is str
        and len(scope) <= 4096
        and _is_unicode(scope)
        and claims["iss"] == ISSUER
        and _AUDIENCE in audiences
        and max(claims["iat"], claims.get("nbf", 0)) <= now < claims["exp"]
    )
    return claims if kept else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _value in pairs]
    if any(names.count(name) > 1 for name in names):
        raise ValueError("twice")
    return dict(pairs)


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
