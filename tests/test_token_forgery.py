"""Forged tokens: what the issuer must refuse as a bearer access token and as a refresh token.

The vectors are in `data/forged_tokens.json`; what JSON cannot carry is made here. Most of them are signed with the
service's real key: a good signature must not make up for anything else.
"""

import hashlib
import hmac
import json
import random
import socket
import time
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt as joserfc_jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey
from joserfc.jws import JWSRegistry

from auth_service.keys.signing_key import new_private_key, public_members, thumbprint
from auth_service.verifier import AccessTokenClaims, CompactJWS, InvalidToken
from auth_service.verifier.claims import ACCESS_TOKEN_TYPES
from tests.support.service import Service, SignedIn, problem
from tests.support.stores import ISSUER
from tests.support.tokens import base64url, claims_of, generation_of, header_of

_DATA: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "forged_tokens.json").read_text("ascii"))
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_LONGEST = 8192  # characters of a token


class _Signer(Protocol):
    def __call__(self, signed: bytes, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class _Attack:
    """A signed-in user whose tokens are forged, another one who is to be impersonated, and every key there is."""

    service: Service
    user: SignedIn
    other: SignedIn
    kid: str
    private_key: RSAPrivateKey
    attackers_key: RSAPrivateKey

    @property
    def good(self) -> dict[str, str]:
        return {"access": self.user.access_token, "refresh": self.user.refresh_token}

    def sign(self, signed: bytes) -> bytes:
        """As the service signs."""
        return self.private_key.sign(signed, PKCS1v15(), hashes.SHA256())

    def changed(self, kind: str, vector: dict[str, Any], *, part: str, signer: _Signer | None = None) -> str:
        """The good token with the change that `vector` makes to its header or its claims."""
        parts = {"header": header_of(self.good[kind]), "claims": claims_of(self.good[kind])}
        parts[part] = {name: value for name, value in parts[part].items() if name not in vector.get("drop", ())}
        parts[part] |= self._filled(vector.get("set", {}))
        return compact(parts["header"], parts["claims"], signer or self.sign)

    def _filled(self, value: Any) -> Any:
        """`value` with what only a running service knows in place of `<...>`."""
        if isinstance(value, dict):
            return {self._filled(name): self._filled(member) for name, member in value.items()}
        if isinstance(value, list):
            return [self._filled(item) for item in value]
        if not isinstance(value, str):
            return value
        if value.startswith("<now"):
            seconds, text, _ = value[4:-1].partition(" as text")
            moment = int(time.time()) + int(seconds)
            return str(moment) if text else moment
        for name, filling in {
            "<issuer>": ISSUER,
            "<kid>": self.kid,
            "<sid>": claims_of(self.user.access_token)["sid"],
            "<other user>": self.other.id,
            "<other session>": claims_of(self.other.access_token)["sid"],
        }.items():
            value = value.replace(name, filling)
        return value

    async def expect_refused(self, kind: str, forged: str, about: str, *, code: str = "invalid_token") -> None:
        """`forged` must be refused wherever a token of this kind is taken."""
        if kind == "access":
            answer = await self.service.http.get("/user/me", headers=_authorization(f"Bearer {forged}"))
            assert problem(answer) == (401, code), (about, answer.text)
            assert f'error="{code}"' in answer.headers["www-authenticate"], about
            return
        answer = await self.service.refresh(forged)
        if not forged or len(forged) > _LONGEST or "\0" in forged:
            assert problem(answer) in ((400, "invalid_request"), (413, "payload_too_large")), (about, answer.text)
        else:
            assert problem(answer) == (401, code), (about, answer.text)
        if forged and forged.isascii() and forged.isprintable() and not set(forged) & set(' ,;"\\'):
            answer = await self.service.http.post(
                "/user/refresh-token",
                headers={"Cookie": f"__Host-refresh_token={forged}", "Origin": "https://app.test"},
            )
            assert problem(answer) == (401, code), (f"{about}, in the cookie", answer.text)


@pytest.fixture(scope="module")
def attackers_key() -> RSAPrivateKey:
    return new_private_key(2048)


@pytest.fixture
async def attack(service: Service, attackers_key: RSAPrivateKey) -> AsyncIterator[_Attack]:
    """What a forger has. When the test ends, the session must be as it was: alive, and never rotated."""
    key = service.app.parts.keys.signing_key(await service.app.parts.database.now())
    assert key.private_key is not None
    user, other = await service.register(), await service.register()
    yield _Attack(service, user, other, key.kid, key.private_key, attackers_key)
    assert (await service.me(user.access_token)).status_code == 200
    assert generation_of(await service.refreshed(user.refresh_token)) == 2
    [row] = await service.sql("SELECT count(*) AS ended FROM sessions WHERE revoked_at IS NOT NULL")
    assert row["ended"] == 0


both_kinds = pytest.mark.parametrize("kind", ["access", "refresh"])


@pytest.mark.parametrize("typ", ["at+jwt", "application/at+jwt"])
async def test_a_token_forged_without_any_fault_is_accepted(attack: _Attack, typ: str) -> None:
    """Or the other tests would pass for want of a signature."""
    access_token = attack.changed("access", {"set": {"typ": typ, "jku": "https://evil.test"}}, part="header")
    assert (await attack.service.me(access_token)).status_code == 200
    refresh_token = attack.changed("refresh", {"set": {"gen": 1, "extra": [1]}}, part="claims")
    assert generation_of(await attack.service.refreshed(refresh_token)) == 2


async def test_each_kind_is_refused_where_the_other_is_expected(attack: _Attack) -> None:
    await attack.expect_refused("access", attack.user.refresh_token, "a refresh token as bearer")
    await attack.expect_refused("refresh", attack.user.access_token, "an access token as refresh token")
    for typ in ("rt+jwt", "application/rt+jwt"):
        await attack.expect_refused("access", attack.changed("access", {"set": {"typ": typ}}, part="header"), typ)
    for typ in ("at+jwt", "application/at+jwt", "application/rt+jwt"):
        await attack.expect_refused("refresh", attack.changed("refresh", {"set": {"typ": typ}}, part="header"), typ)


@both_kinds
async def test_a_header_that_we_never_write_is_refused(attack: _Attack, kind: str) -> None:
    for vector in _DATA["headers"]:
        await attack.expect_refused(kind, attack.changed(kind, vector, part="header"), vector["about"])


async def test_claims_of_an_access_token_that_we_never_write_are_refused(attack: _Attack) -> None:
    for vector in _DATA["access_claims"]:
        await attack.expect_refused("access", attack.changed("access", vector, part="claims"), vector["about"])


async def test_claims_of_a_refresh_token_that_we_never_write_are_refused(attack: _Attack) -> None:
    for vector in _DATA["refresh_claims"]:
        forged = attack.changed("refresh", vector, part="claims")
        await attack.expect_refused("refresh", forged, vector["about"], code=vector.get("code", "invalid_token"))


@both_kinds
async def test_a_number_that_is_not_json_or_not_finite_is_refused(attack: _Attack, kind: str) -> None:
    header, claims = header_of(attack.good[kind]), claims_of(attack.good[kind])
    for name in ("iat", "exp", "gen" if kind == "refresh" else "auth_time", "extra"):
        for about, literal in _DATA["number_literals"].items():
            text = json.dumps({**claims, name: "<number>"}).replace('"<number>"', literal)
            await attack.expect_refused(kind, compact(header, text.encode(), attack.sign), f"{name}: {about}")


@both_kinds
async def test_json_that_two_readers_could_read_differently_is_refused(attack: _Attack, kind: str) -> None:
    header, claims = header_of(attack.good[kind]), claims_of(attack.good[kind])
    head, body = json.dumps(header), json.dumps(claims)
    for name in header:
        twice = f"{{{json.dumps(name)}: {json.dumps(header[name])}, {head[1:]}"
        await attack.expect_refused(kind, compact(twice.encode(), claims, attack.sign), f"header {name} twice")
    for name in claims:
        for first in (claims[name], None, "x"):
            twice = f"{{{json.dumps(name)}: {json.dumps(first)}, {body[1:]}"
            await attack.expect_refused(kind, compact(header, twice.encode(), attack.sign), f"claim {name} twice")
    nested = f'{body[:-1]}, "extra": [{{"a": 1, "a": 2}}]}}'
    await attack.expect_refused(kind, compact(header, nested.encode(), attack.sign), "twice in a nested object")
    for part, text in (("header", head), ("claims", body)):
        for about, data in {
            "UTF-16": text.encode("utf-16"),
            "UTF-32": text.encode("utf-32"),
            "a byte order mark": text.encode("utf-8-sig"),
            "text behind": text.encode() + b"{}",
            "a NUL behind": text.encode() + b"\0",
            "text before": b"\0" + text.encode(),
            "cut short": text.encode()[:-1],
            "a raw control character": text.replace('"', '"\t', 1).encode(),
            "a trailing comma": (text[:-1] + ",}").encode(),
            "a comment": (text[:-1] + "/**/}").encode(),
            "single quotes": text.replace('"', "'").encode(),
            "invalid UTF-8": text.encode().replace(b'"}', b'\xff"}') if text.endswith('"}') else b'{"x": "\xff"}',
            "a raw surrogate": b'{"x": "\xed\xa0\x80",' + text.encode()[1:],
            "an array": f"[{text}]".encode(),
            "a string": json.dumps(text).encode(),
            "null": b"null",
            "a number": b"1",
            "an empty object": b"{}",
            "nothing": b"",
            "bytes": bytes(range(256)),
        }.items():
            forged = compact(data if part == "header" else header, data if part == "claims" else claims, attack.sign)
            await attack.expect_refused(kind, forged, f"{part}: {about}")


@both_kinds
async def test_a_token_nested_as_deeply_as_it_can_be_is_refused(attack: _Attack, kind: str) -> None:
    header, claims = header_of(attack.good[kind]), claims_of(attack.good[kind])
    for about, deep in {
        "arrays": b"[" * 4_500,
        "arrays, closed": b"[" * 2_250 + b"]" * 2_250,
        "objects": b'{"":' * 1_100,
        "objects, closed": b'{"":' * 900 + b"1" + b"}" * 900,
        "too long": b"[" * 100_000,
        "too long, closed": b"[" * 100_000 + b"]" * 100_000,
    }.items():
        for forged in (compact(deep, claims, attack.sign), compact(header, deep, attack.sign)):
            await attack.expect_refused(kind, forged, about)
    # With everything that is asked for beside it: how deep Python's own reader goes depends on its version.
    for depth in (500, 1_000, 2_000):
        text = json.dumps(claims).encode()[:-1] + b', "x": ' + b"[" * depth + b"]" * depth + b"}"
        deep_token = compact(header, text, attack.sign)
        assert len(deep_token) <= _LONGEST
        if kind == "access":
            answer = await attack.service.me(deep_token)
        else:
            answer = await attack.service.refresh(deep_token)
        assert answer.status_code == 200 or problem(answer) == (401, "invalid_token"), depth


@both_kinds
async def test_a_secret_made_of_our_public_key_signs_nothing(attack: _Attack, kind: str) -> None:
    public_key = attack.private_key.public_key()
    jwks = (await attack.service.http.get("/.well-known/jwks.json")).content
    [jwk] = json.loads(jwks)["keys"]
    pem = public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    secrets = {
        "the PEM": pem,
        "the PEM without its last line end": pem.rstrip(),
        "the PEM with CR LF": pem.replace(b"\n", b"\r\n"),
        "the PKCS #1 PEM": public_key.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        "the DER": public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "the PKCS #1 DER": public_key.public_bytes(Encoding.DER, PublicFormat.PKCS1),
        "the OpenSSH key": public_key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        "the JWKS": jwks,
        "the JWK": json.dumps(jwk).encode(),
        "the JWK without spaces": json.dumps(jwk, separators=(",", ":")).encode(),
        "the JWK of the thumbprint": json.dumps(
            {"e": jwk["e"], "kty": "RSA", "n": jwk["n"]}, separators=(",", ":")
        ).encode(),
        "n": jwk["n"].encode(),
        "the bytes of n": urlsafe_b64decode(jwk["n"] + "=="),
        "the kid": jwk["kid"].encode(),
        "nothing": b"",
        "a guess": b"secret",
    }
    for about, secret in secrets.items():
        for alg, digest in (("HS256", "sha256"), ("HS384", "sha384"), ("HS512", "sha512"), ("RS256", "sha256")):
            forged = attack.changed(kind, {"set": {"alg": alg}}, part="header", signer=_hmac_signer(secret, digest))
            await attack.expect_refused(kind, forged, f"{alg} keyed with {about}")


@both_kinds
async def test_another_key_signs_nothing_wherever_the_token_says_it_is(attack: _Attack, kind: str) -> None:
    numbers = public_members(attack.attackers_key.public_key())
    kid = thumbprint(attack.attackers_key.public_key())
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    jwk = {"kty": "RSA", **numbers}

    def sign(signed: bytes) -> bytes:
        return attack.attackers_key.sign(signed, PKCS1v15(), hashes.SHA256())

    headers: list[dict[str, Any]] = [{}]
    headers += [{"jwk": {**jwk, "kid": named, "alg": "RS256", "use": "sig"}} for named in (kid, attack.kid)]
    headers += [{"jwk": {"keys": [jwk]}}, {"jwk": json.dumps(jwk)}, {"jwks": {"keys": [jwk]}}]
    headers += [{name: f"{url}/jwks.json"} for name in ("jku", "x5u", "iss", "url")]
    headers += [{"x5c": ["MIIB"]}, {"x5c": "MIIB", "x5t": "x", "x5t#S256": "y"}]
    with listener:
        for members in headers:
            for named in (kid, attack.kid):
                forged = attack.changed(kind, {"set": {**members, "kid": named}}, part="header", signer=sign)
                await attack.expect_refused(kind, forged, f"kid {named}, {members}")
            forged = attack.changed(kind, {"set": members, "drop": ["kid"]}, part="header", signer=sign)
            await attack.expect_refused(kind, forged, f"no kid, {members}")
        with pytest.raises(BlockingIOError):
            listener.accept()  # nobody has called


@both_kinds
async def test_a_signature_that_is_not_pkcs1_sha_256_of_both_segments_is_refused(attack: _Attack, kind: str) -> None:
    key = attack.private_key
    head, body, signature = attack.good[kind].split(".")
    good = urlsafe_b64decode(signature + "==")
    signers: dict[str, _Signer] = {
        "SHA-1": lambda signed: key.sign(signed, PKCS1v15(), hashes.SHA1()),  # noqa: S303 — what a forger may do
        "SHA-384": lambda signed: key.sign(signed, PKCS1v15(), hashes.SHA384()),
        "SHA-512": lambda signed: key.sign(signed, PKCS1v15(), hashes.SHA512()),
        "PSS": lambda signed: key.sign(signed, PSS(MGF1(hashes.SHA256()), 32), hashes.SHA256()),
        "only the header": lambda signed: attack.sign(signed.partition(b".")[0]),
        "only the claims": lambda signed: attack.sign(signed.partition(b".")[2]),
        "without the dot": lambda signed: attack.sign(signed.replace(b".", b"")),
        "of another token": lambda _signed: good,
        "zeros": lambda _signed: bytes(256),
        "one": lambda _signed: bytes(255) + b"\1",
        "ones": lambda _signed: b"\xff" * 256,
        "a byte short": lambda signed: attack.sign(signed)[:-1],
        "a byte more": lambda signed: attack.sign(signed) + b"\0",
        "a zero before": lambda signed: b"\0" + attack.sign(signed),
        "twice": lambda signed: attack.sign(signed) * 2,
        "the digest": lambda signed: hashlib.sha256(signed).digest(),
        "one byte": lambda _signed: b"\0",
        "reversed": lambda signed: attack.sign(signed)[::-1],
    }
    claims = {**claims_of(attack.good[kind]), "jti": "another"}
    for about, signer in signers.items():
        await attack.expect_refused(kind, compact(header_of(attack.good[kind]), claims, signer), about)
    for bit in (0, 7, 1_023, 2_047):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        await attack.expect_refused(kind, f"{head}.{body}.{base64url(bytes(flipped))}", f"bit {bit} flipped")


@both_kinds
async def test_a_token_without_signature_is_refused(attack: _Attack, kind: str) -> None:
    for alg in ("none", "None", "NONE", "nOnE", "RS256", ""):
        unsigned = attack.changed(kind, {"set": {"alg": alg}}, part="header", signer=lambda _signed: b"")
        for about, forged in {
            "nothing": unsigned,
            "no segment": unsigned.rstrip("."),
            "a dot more": f"{unsigned}.",
            "a good one": unsigned + attack.good[kind].rpartition(".")[2],
        }.items():
            await attack.expect_refused(kind, forged, f"{alg}, {about} as signature")


@both_kinds
async def test_a_second_spelling_of_a_good_token_is_refused(attack: _Attack, kind: str) -> None:
    token = attack.good[kind]
    head, body, signature = token.split(".")
    spellings = {
        f"segment {index} with {suffix!r}": ".".join(
            segment + suffix * (index == place) for place, segment in enumerate((head, body, signature))
        )
        for index in range(3)
        for suffix in ("=", "==", "A", "AA", "AAA", "AAAA", "\0", "\n", " ", "\t", "%3D", "+", "/", "é", "\u00a0")
    }
    spellings |= {
        f"a last character with other unused bits: {character}": f"{token[:-1]}{character}"
        for character in _same_byte(token[-1], unused_bits=4)  # 256 bytes leave four
    }
    for claims in _of_each_length(claims_of(token)):
        resigned = compact(header_of(token), claims, attack.sign)
        start, middle, _ = resigned.split(".")
        if unused := {2: 4, 3: 2}.get(len(middle) % 4):
            for character in _same_byte(middle[-1], unused_bits=unused):
                # Signed as it stands: only the decoder can object.
                signed = f"{start}.{middle[:-1]}{character}"
                spellings[f"claims ending in {character}"] = f"{signed}.{base64url(attack.sign(signed.encode()))}"
    for separator in ("\n", "\r\n", " ", "\0", "\u2028", "\ufeff"):
        spellings |= {
            f"{separator!r} before": f"{separator}{token}",
            f"{separator!r} behind": f"{token}{separator}",
            f"{separator!r} between": f"{head}.{separator}{body}.{signature}",
            f"{separator!r} inside": f"{head[:9]}{separator}{head[9:]}.{body}.{signature}",
        }
    if kind == "access":
        # White space around the credentials belongs to the header, not to the token: HTTP takes it off.
        spellings = {about: text for about, text in spellings.items() if text.strip(" \t") != token}
    spellings |= {
        "full-width dots": token.replace(".", "\uff0e"),
        "full-width letters": "".join(chr(ord(c) + 0xFEE0) if c.isalnum() else c for c in head)
        + f".{body}.{signature}",
        "the standard alphabet": token.replace("-", "+").replace("_", "/"),
        "lower case": token.lower(),
        "percent-encoded": token.replace(".", "%2E"),
        "quoted": f'"{token}"',
        "with its scheme": f"Bearer {token}",
    }
    for about, text in spellings.items():
        assert text != token, about
        await attack.expect_refused(kind, text, about)


@both_kinds
async def test_anything_but_three_segments_is_refused(attack: _Attack, kind: str) -> None:
    token = attack.good[kind]
    head, body, signature = token.split(".")
    for text in (
        *("", ".", "..", "...", "x", "x.y", "x.y.z", head, f"{head}.{body}", f"{head}.{body}.", f"{head}..{signature}"),
        *(
            f".{body}.{signature}",
            f".{token}",
            f"{token}.",
            f"{head}.{token}",
            f"{token}.{signature}",
            f"{token}..",
            "." * 5_000,
        ),
        f"{head}.{body}.{signature}.{body}.{signature}",  # as a JWE has
        f"{head},{body},{signature}",
        f"{body}.{head}.{signature}",
        f"{signature}.{body}.{head}",
    ):
        await attack.expect_refused(kind, text, text[:40])


@both_kinds
async def test_the_json_serialization_is_refused(attack: _Attack, kind: str) -> None:
    head, body, signature = attack.good[kind].split(".")
    flattened = {"payload": body, "protected": head, "signature": signature}
    general = {"payload": body, "signatures": [{"protected": head, "signature": signature}]}
    for members in (flattened, general, {**flattened, "header": {"kid": attack.kid}}):
        await attack.expect_refused(kind, json.dumps(members, separators=(",", ":")), "JSON")
        await attack.expect_refused(kind, base64url(json.dumps(members).encode()), "JSON, encoded")


@both_kinds
async def test_a_token_over_8_kib_is_refused_before_it_is_read(attack: _Attack, kind: str) -> None:
    header, claims = header_of(attack.good[kind]), claims_of(attack.good[kind])
    fill = next(
        size
        for size in range(4_000, 7_000)
        if len(compact(header, {**claims, "x": "x" * size}, lambda _signed: bytes(256))) > _LONGEST
    )
    longest = compact(header, {**claims, "x": "x" * (fill - 1)}, attack.sign)
    assert _LONGEST - 4 < len(longest) <= _LONGEST
    if kind == "access":
        assert (await attack.service.me(longest)).status_code == 200
    else:
        assert (await attack.service.refresh(longest)).status_code == 200
    await attack.expect_refused(kind, compact(header, {**claims, "x": "x" * fill}, attack.sign), "a little longer")
    huge = compact(header, {**claims, "x": "x" * 1_000_000}, attack.sign)
    answer = await attack.service.http.get("/user/me", headers={"Authorization": f"Bearer {huge}"})
    assert problem(answer) == (401, "invalid_token")


async def test_an_authorization_header_that_is_not_one_bearer_token_is_refused(attack: _Attack) -> None:
    for vector in _DATA["authorization"]:
        value = vector.replace("<token>", attack.user.access_token)
        answer = await attack.service.http.get("/user/me", headers=_authorization(value))
        assert problem(answer) == (401, "invalid_token"), (vector, answer.text)
    assert (
        await attack.service.http.get("/user/me", headers={"Authorization": f"bEARER {attack.user.access_token}"})
    ).status_code == 200


async def test_without_credentials_the_challenge_names_no_error(attack: _Attack) -> None:
    answer = await attack.service.http.get("/user/me")
    assert problem(answer) == (401, "invalid_token")
    assert answer.headers["www-authenticate"] == 'Bearer realm="auth-service"'


async def test_two_authorization_headers_are_refused(attack: _Attack) -> None:
    good, bad = attack.user.bearer["Authorization"], "Basic dXNlcjpwYXNz"
    for values in ((good, good), (good, bad), (bad, good), (good, ""), ("", good), (bad, bad)):
        answer = await attack.service.http.get("/user/me", headers=[("Authorization", value) for value in values])
        assert problem(answer) == (400, "invalid_request"), values


async def test_a_token_anywhere_but_in_the_authorization_header_is_not_read(attack: _Attack) -> None:
    token = attack.user.access_token
    for name in ("access_token", "token", "bearer", "authorization"):
        requests: tuple[dict[str, Any], ...] = (
            {"params": {name: token}},
            {"headers": {"Cookie": f"{name}={token}"}},
            {"headers": {f"X-{name.replace('_', '-')}": f"Bearer {token}"}},
            {"headers": {"Proxy-Authorization": f"Bearer {token}"}},
        )
        for request in requests:
            assert problem(await attack.service.http.get("/user/me", **request)) == (401, "invalid_token")


def test_the_thumbprint_is_that_of_rfc_7638() -> None:
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknj"
        "hMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQ"
        "vRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzK"
        "nqDKgw"
    )
    modulus = int.from_bytes(urlsafe_b64decode(n + "=="), "big")
    key: RSAPublicKey = RSAPublicNumbers(65_537, modulus).public_key()
    assert thumbprint(key) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


async def test_the_jwks_holds_public_members_only_and_names_each_key_by_its_thumbprint(service: Service) -> None:
    [jwk] = (await service.http.get("/.well-known/jwks.json")).json()["keys"]
    assert jwk.keys() == {"kty", "n", "e", "kid", "alg", "use"}
    assert (jwk["kty"], jwk["alg"], jwk["use"]) == ("RSA", "RS256", "sig")
    e, n = (int.from_bytes(urlsafe_b64decode(jwk[name] + "=="), "big") for name in ("e", "n"))
    assert jwk["kid"] == thumbprint(RSAPublicNumbers(e, n).public_key())


def test_what_our_verifier_accepts_others_accept_with_the_same_claims(attackers_key: RSAPrivateKey) -> None:
    """PyJWT and joserfc are more forgiving: whatever they refuse or read differently, we must refuse."""
    now = int(time.time())
    public_key = attackers_key.public_key()
    rsa_key = RSAKey.import_key({"kty": "RSA", **public_members(public_key)})
    registry = JWSRegistry(algorithms=["RS256"], strict_check_header=False)
    accepted = refused = 0
    for text in _mutations(attackers_key, now, count=4_000, seed=20_300_131):
        try:
            claims = AccessTokenClaims.parse(
                CompactJWS.parse(text, types=ACCESS_TOKEN_TYPES).payload(public_key),
                issuer=ISSUER,
                audience=("orders",),
                now=now,
            )
        except InvalidToken:
            refused += 1
            continue
        accepted += 1
        assert jwt.decode(text, public_key, ["RS256"], audience="orders", issuer=ISSUER) == claims.claims
        try:
            assert joserfc_jwt.decode(text, rsa_key, ["RS256"], registry).claims == claims.claims
        except JoseError as exc:
            pytest.fail(f"joserfc refuses {text}: {exc}")
    assert accepted > 500
    assert refused > 2_000


def compact(header: dict[str, Any] | bytes, claims: dict[str, Any] | bytes, signer: _Signer) -> str:
    """A compact JWS of these parts, whatever they are."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
    signed = ".".join(map(base64url, parts))
    return f"{signed}.{base64url(signer(signed.encode()))}"


def _authorization(value: str) -> list[tuple[bytes, bytes]]:
    """The header with these bytes: Latin-1, and UTF-8 for what that lacks."""
    encoding = "utf-8" if any(character > "\xff" for character in value) else "latin-1"
    return [(b"Authorization", value.encode(encoding))]


def _hmac_signer(secret: bytes, digest: str) -> _Signer:
    return lambda signed: hmac.digest(secret, signed, digest)


def _same_byte(character: str, *, unused_bits: int) -> Iterator[str]:
    """The other characters that a lax base64url decoder reads as the same last byte."""
    value = _ALPHABET.index(character) >> unused_bits << unused_bits
    for bits in range(1, 1 << unused_bits):
        yield _ALPHABET[value | bits]


def _of_each_length(claims: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The same claims with three lengths in a row: two of them leave unused bits in base64url."""
    for filling in ("", "x", "xx"):
        yield {**claims, "filling": filling}


def _mutations(key: RSAPrivateKey, now: int, *, count: int, seed: int) -> Iterator[str]:
    """Variations of a good access token, about a third of them still good."""
    random_source = random.Random(seed)  # noqa: S311 — the same ones in every run
    choose = random_source.choice
    header = {"alg": "RS256", "typ": "at+jwt", "kid": "k"}
    claims: dict[str, Any] = {"iss": ISSUER, "sub": "somebody", "aud": ["orders", "billing"], "client_id": "web"}
    claims |= {"jti": "an id", "iat": now - 60, "exp": now + 600, "auth_time": now - 60}
    claims |= {"scope": "profile", "sid": "a session"}
    values: tuple[Any, ...] = (
        *(None, True, False, 0, 1, -1, 1.5, "", "x", "ä", "\u0000", "\ud83d\ude00", "\ud800", [], ["orders"], [1], {}),
        *(
            {"a": {"b": [1, 2.5]}},
            now - 60,
            now + 600,
            now - 60.5,
            now + 600.25,
            str(now),
            10**30,
            1e300,
            ISSUER,
            "orders",
        ),
    )
    names = (*claims, "nbf", "extra", "preferred_username", "email", "", "ä")

    def sign(signed: bytes) -> bytes:
        return key.sign(signed, PKCS1v15(), hashes.SHA256())

    def spelt(members: dict[str, Any]) -> bytes:
        items = list(members.items())
        random_source.shuffle(items)
        text = json.dumps(
            dict(items),
            ensure_ascii=choose([True, False]),
            indent=choose([None, 0, 1, "\t"]),
            separators=choose([None, (",", ":"), (" , ", " : ")]),
        )
        if random_source.random() < 0.1:
            text = choose([f" {text}\n", f"{text}x", text + text, f"\ufeff{text}", text.replace("e", "\\u0065")])
        if random_source.random() < 0.1 and items:
            text = f"{{{json.dumps(items[0][0])}: {json.dumps(choose(values))}, {text.lstrip()[1:]}"
        return text.encode("utf-8", "surrogatepass")

    for number in range(count):
        head, body = dict(header), dict(claims)
        if number % 2:
            for _change in range(random_source.randint(0, 2)):
                name = choose(names)
                if random_source.random() < 0.2:
                    body.pop(name, None)
                else:
                    body[name] = choose(values)
        if number % 5 == 0:
            head[choose(("alg", "typ", "kid", "x", "crit", "b64", "zip"))] = choose((*values, "RS256", "none"))
        text = compact(spelt(head), spelt(body), sign)
        if number % 3 == 0:
            place = random_source.randrange(len(text))
            text = choose(
                [
                    text[:place] + choose(_ALPHABET + "=. +/\n") + text[place + 1 :],
                    text[:place] + text[place + 1 :],
                    text[:place] + choose(_ALPHABET) + text[place:],
                    text[:-1] + choose(_ALPHABET),
                    text,
                ]
            )
        yield text
