"""Forged tokens: each is an honest one with one change, and the error with which a verifier must refuse it.

The vectors are in `data/forged_tokens.json`; what JSON cannot carry is made here. Most are signed with the real key: a
good signature must not make up for anything else. Who is asked to take them is said by the tests.
"""

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from auth_service.verifier import BadSignature, InvalidClaim, InvalidToken, MalformedToken, UnknownKey
from auth_service.verifier.testing import FakeIssuer
from tests.support.tokens import base64url, claims_of, header_of

VECTORS: Final[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "forged_tokens.json").read_text("ascii")
)
LONGEST: Final = 8192  # characters of a token
ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


class Signer(Protocol):
    def __call__(self, signed: bytes, /) -> bytes: ...


class Forgery(NamedTuple):
    """A forged token, what was done to it, and what the verifier of access tokens raises for it."""

    about: str
    token: str
    error: type[InvalidToken] = MalformedToken


@dataclass(frozen=True, slots=True)
class Forger:
    """Forges from one honest token, with the key that signed it. `now` in seconds since the epoch.

    `fillings` is what stands in the vectors as `<...>`, for only a running service knows it.
    """

    honest: str
    key: RSAPrivateKey
    now: int
    fillings: Mapping[str, str]

    @property
    def header(self) -> dict[str, Any]:
        return header_of(self.honest)

    @property
    def claims(self) -> dict[str, Any]:
        return claims_of(self.honest)

    def sign(self, signed: bytes, /) -> bytes:
        """As the issuer signs."""
        return self.key.sign(signed, PKCS1v15(), hashes.SHA256())

    def changed(self, vector: Mapping[str, Any], *, part: str, signer: Signer | None = None) -> str:
        """The honest token with the change that `vector` makes to its "header" or its "claims"."""
        parts = {"header": self.header, "claims": self.claims}
        parts[part] = {name: value for name, value in parts[part].items() if name not in vector.get("drop", ())}
        parts[part] |= self._filled(vector.get("set", {}))
        return compact(parts["header"], parts["claims"], signer or self.sign)

    def numbers_that_are_not_json(self, *names: str) -> Iterator[Forgery]:
        """Claims that are NaN, infinite, hexadecimal, of 5,000 digits and the like."""
        for name in names:
            for about, literal in VECTORS["number_literals"].items():
                text = json.dumps({**self.claims, name: "<number>"}).replace('"<number>"', literal)
                yield Forgery(f"{name}: {about}", compact(self.header, text.encode(), self.sign))

    def doubled_members(self) -> Iterator[Forgery]:
        """Objects in which one reader would take the first, and another the last of two members."""
        header, claims = self.header, self.claims
        head, body = json.dumps(header), json.dumps(claims)
        for name in header:
            twice = f"{{{json.dumps(name)}: {json.dumps(header[name])}, {head[1:]}"
            yield Forgery(f"header {name} twice", compact(twice.encode(), claims, self.sign))
        for name in claims:
            for first in (claims[name], None, "x"):
                twice = f"{{{json.dumps(name)}: {json.dumps(first)}, {body[1:]}"
                yield Forgery(f"claim {name} twice", compact(header, twice.encode(), self.sign))
        nested = f'{body[:-1]}, "extra": [{{"a": 1, "a": 2}}]}}'
        yield Forgery("twice in a nested object", compact(header, nested.encode(), self.sign))
        escaped = f'{body[:-1]}, "\\u0073ub": "x"}}'
        yield Forgery("twice, once escaped", compact(header, escaped.encode(), self.sign))

    def lax_json(self) -> Iterator[Forgery]:
        """Encodings and spellings that one reader takes for JSON and another does not."""
        for part, members in (("header", self.header), ("claims", self.claims)):
            text = json.dumps(members)
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
                "invalid UTF-8": (text[:-1] + ', "x": "').encode() + b'\xff"}',
                "an overlong encoding": (text[:-1] + ', "x": "').encode() + b'\xc0\xaf"}',
                "a surrogate in UTF-8": (text[:-1] + ', "x": "').encode() + b'\xed\xa0\x80"}',
                "an array": f"[{text}]".encode(),
                "a string": json.dumps(text).encode(),
                "null": b"null",
                "a number": b"1",
                "nothing": b"",
                "nothing but space": b" ",
                "bytes": bytes(range(256)),
                "an empty object": b"{}",
            }.items():
                head, body = (data, self.claims) if part == "header" else (self.header, data)
                # An object without members is good JSON, and says nothing of what is asked for.
                error = InvalidClaim if part == "claims" and data == b"{}" else MalformedToken
                yield Forgery(f"{part}: {about}", compact(head, body, self.sign), error)

    def nested(self) -> Iterator[Forgery]:
        """Arrays and objects nested as deeply as a token can hold, and far deeper."""
        for about, deep in {
            "arrays": b"[" * 4_500,
            "arrays, closed": b"[" * 2_250 + b"]" * 2_250,
            "objects": b'{"":' * 1_100,
            "objects, closed": b'{"":' * 900 + b"1" + b"}" * 900,
            "too long": b"[" * 100_000,
            "too long, closed": b"[" * 100_000 + b"]" * 100_000,
        }.items():
            yield Forgery(f"header: {about}", compact(deep, self.claims, self.sign))
            # Whether 900 objects are too deep depends on the version of Python: if not, no claim of ours is in them.
            error = InvalidToken if about == "objects, closed" else MalformedToken
            yield Forgery(f"claims: {about}", compact(self.header, deep, self.sign), error)

    def keyed_with_the_public_key(self) -> Iterator[Forgery]:
        """HMACs whose secret is what everybody knows of the key, in every form it has."""
        public_key = self.key.public_key()
        kid = self.header["kid"]
        numbers = public_key.public_numbers()
        n, e = (base64url(number.to_bytes((number.bit_length() + 7) // 8, "big")) for number in (numbers.n, numbers.e))
        jwk = {"kty": "RSA", "n": n, "e": e, "kid": kid, "alg": "RS256", "use": "sig"}
        pem = public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        secrets = {
            "the PEM": pem,
            "the PEM without its last line end": pem.rstrip(),
            "the PEM with CR LF": pem.replace(b"\n", b"\r\n"),
            "the PKCS #1 PEM": public_key.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
            "the DER": public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            "the PKCS #1 DER": public_key.public_bytes(Encoding.DER, PublicFormat.PKCS1),
            "the OpenSSH key": public_key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
            "the JWKS": json.dumps({"keys": [jwk]}, separators=(",", ":")).encode(),
            "the JWK": json.dumps(jwk).encode(),
            "the JWK without spaces": json.dumps(jwk, separators=(",", ":")).encode(),
            "the JWK of the thumbprint": json.dumps({"e": e, "kty": "RSA", "n": n}, separators=(",", ":")).encode(),
            "n": n.encode(),
            "the bytes of n": urlsafe_b64decode(n + "=="),
            "the kid": kid.encode(),
            "nothing": b"",
            "a guess": b"secret",
        }
        for about, secret in secrets.items():
            for alg, digest in (("HS256", "sha256"), ("HS384", "sha384"), ("HS512", "sha512"), ("RS256", "sha256")):
                forged = self.changed({"set": {"alg": alg}}, part="header", signer=_hmac_signer(secret, digest))
                error = BadSignature if alg == "RS256" else MalformedToken
                yield Forgery(f"{alg} keyed with {about}", forged, error)

    def signed_by_another(self, other: RSAPrivateKey, *, url: str) -> Iterator[Forgery]:
        """Tokens that bring a key of their own, or say that it is to be found at `url`, for the honest claims."""
        numbers = other.public_key().public_numbers()
        jwk = {"kty": "RSA", "n": base64url(numbers.n.to_bytes(256, "big")), "e": "AQAB"}
        other_kid = "the-other-key"

        def sign(signed: bytes) -> bytes:
            return other.sign(signed, PKCS1v15(), hashes.SHA256())

        kids: list[tuple[str, type[InvalidToken]]] = [(other_kid, UnknownKey), (self.header["kid"], BadSignature)]
        registered: dict[str, dict[str, Any]] = {
            **{f"jwk {kid}": {"jwk": {**jwk, "kid": kid, "alg": "RS256", "use": "sig"}} for kid, _ in kids},
            "jwk, a set": {"jwk": {"keys": [jwk]}},
            "jwk, a text": {"jwk": json.dumps(jwk)},
            "jku": {"jku": f"{url}/jwks.json"},
            "x5u": {"x5u": f"{url}/chain.pem"},
            "x5c": {"x5c": ["MIIB"]},
            "x5c, a text": {"x5c": "MIIB", "x5t": "x", "x5t#S256": "y"},
        }
        # Means nothing in RFC 7515 §4 and is ignored; the key is not to be found there all the same.
        unregistered: dict[str, dict[str, Any]] = {
            "nothing said": {},
            "jwks": {"jwks": {"keys": [jwk]}},
            **{name: {name: url} for name in ("iss", "url", "jwks_uri")},
        }
        for about, members in (registered | unregistered).items():
            for kid, error in kids:
                forged = self.changed({"set": {**members, "kid": kid}}, part="header", signer=sign)
                yield Forgery(f"{about}, kid {kid}", forged, MalformedToken if about in registered else error)
            forged = self.changed({"set": members, "drop": ["kid"]}, part="header", signer=sign)
            yield Forgery(f"{about}, no kid", forged)
        for about, members in registered.items():
            yield Forgery(f"{about}, well signed", self.changed({"set": members}, part="header"))

    def wrong_signatures(self) -> Iterator[Forgery]:
        """Signatures that are not PKCS #1 v1.5 with SHA-256 of both segments."""
        key = self.key
        head, body, signature = self.honest.split(".")
        good = urlsafe_b64decode(signature + "==")
        signers: dict[str, Signer] = {
            "SHA-1": lambda signed: key.sign(signed, PKCS1v15(), hashes.SHA1()),  # noqa: S303 — what a forger may do
            "SHA-384": lambda signed: key.sign(signed, PKCS1v15(), hashes.SHA384()),
            "SHA-512": lambda signed: key.sign(signed, PKCS1v15(), hashes.SHA512()),
            "PSS": lambda signed: key.sign(signed, PSS(MGF1(hashes.SHA256()), 32), hashes.SHA256()),
            "only the header": lambda signed: self.sign(signed.partition(b".")[0]),
            "only the claims": lambda signed: self.sign(signed.partition(b".")[2]),
            "without the dot": lambda signed: self.sign(signed.replace(b".", b"")),
            "of another token": lambda _signed: good,
            "zeros": lambda _signed: bytes(256),
            "one": lambda _signed: bytes(255) + b"\1",
            "ones": lambda _signed: b"\xff" * 256,
            "a byte short": lambda signed: self.sign(signed)[:-1],
            "a byte more": lambda signed: self.sign(signed) + b"\0",
            "a zero before": lambda signed: b"\0" + self.sign(signed),
            "twice": lambda signed: self.sign(signed) * 2,
            "the modulus added": lambda signed: _plus_modulus(self.sign(signed), key),
            "the digest": lambda signed: hashlib.sha256(signed).digest(),
            "one byte": lambda _signed: b"\0",
            "reversed": lambda signed: self.sign(signed)[::-1],
        }
        claims = {**self.claims, "jti": "another"}
        for about, signer in signers.items():
            yield Forgery(about, compact(self.header, claims, signer), BadSignature)
        for bit in (0, 7, 1_023, 2_047):
            flipped = bytearray(good)
            flipped[bit // 8] ^= 1 << bit % 8
            yield Forgery(f"bit {bit} flipped", f"{head}.{body}.{base64url(bytes(flipped))}", BadSignature)

    def without_signature(self) -> Iterator[Forgery]:
        for alg in ("none", "None", "NONE", "nOnE", "RS256", ""):
            unsigned = self.changed({"set": {"alg": alg}}, part="header", signer=lambda _signed: b"")
            yield Forgery(f"{alg}, nothing as signature", unsigned)
            yield Forgery(f"{alg}, no segment as signature", unsigned.rstrip("."))
            yield Forgery(f"{alg}, a dot more", f"{unsigned}.")
            if alg != "RS256":
                yield Forgery(f"{alg}, the honest signature", unsigned + self.honest.rpartition(".")[2])

    def second_spellings(self) -> Iterator[Forgery]:
        """Other texts that a lax base64url decoder, or a lax splitter, reads as the honest token."""
        token = self.honest
        head, body, signature = token.split(".")
        for index, segment in enumerate((head, body, signature)):
            for suffix in ("=", "==", "A", "AA", "AAA", "AAAA", "\0", "\n", " ", "\t", "%3D", "+", "/", "é", "\u00a0"):
                segments = [head, body, signature]
                segments[index] = segment + suffix
                # Where claims and signature are still base64url, the one does not belong to the other any more.
                spelt = suffix.startswith("A") and index > 0 and len(segment + suffix) % 4 != 1
                error = BadSignature if spelt else MalformedToken
                yield Forgery(f"segment {index} with {suffix!r}", ".".join(segments), error)
        for character in _same_byte(token[-1], unused_bits=4):  # 256 bytes leave four
            yield Forgery(f"a last character with other unused bits: {character}", f"{token[:-1]}{character}")
        # The same claims with three lengths in a row: two of them leave unused bits in base64url.
        for filling in ("", "x", "xx"):
            start, middle, _ = compact(self.header, {**self.claims, "filling": filling}, self.sign).split(".")
            if unused := {2: 4, 3: 2}.get(len(middle) % 4):
                for character in _same_byte(middle[-1], unused_bits=unused):
                    # Signed as it stands: only the decoder can object.
                    signed = f"{start}.{middle[:-1]}{character}"
                    forged = f"{signed}.{base64url(self.sign(signed.encode()))}"
                    yield Forgery(f"claims ending in {character}", forged)
        for filling, character, other in (("~" * 5, "-", "+"), ("?" * 5, "_", "/")):
            start, middle, _ = compact(self.header, {**self.claims, "filling": filling}, self.sign).split(".")
            assert character in middle
            # The other alphabet of RFC 4648; signed as it stands here, too.
            signed = f"{start}.{middle.replace(character, other)}"
            yield Forgery(f"claims with {other}", f"{signed}.{base64url(self.sign(signed.encode()))}")
        for separator in ("\n", "\r\n", " ", "\0", "\u2028", "\ufeff"):
            yield Forgery(f"{separator!r} before", f"{separator}{token}")
            yield Forgery(f"{separator!r} behind", f"{token}{separator}")
            yield Forgery(f"{separator!r} between", f"{head}.{separator}{body}.{signature}")
            yield Forgery(f"{separator!r} inside", f"{head[:9]}{separator}{head[9:]}.{body}.{signature}")
        wide = "".join(chr(ord(character) + 0xFEE0) if character.isalnum() else character for character in head)
        yield Forgery("full-width dots", token.replace(".", "\uff0e"))
        yield Forgery("full-width letters", f"{wide}.{body}.{signature}")
        yield Forgery("the standard alphabet", token.replace("-", "+").replace("_", "/"))
        yield Forgery("lower case", token.lower())
        yield Forgery("percent-encoded", token.replace(".", "%2E"))
        yield Forgery("quoted", f'"{token}"')
        yield Forgery("with its scheme", f"Bearer {token}")

    def other_segments(self) -> Iterator[Forgery]:
        """Anything but three segments in their order."""
        token = self.honest
        head, body, signature = token.split(".")
        for text in (
            *("", ".", "..", "...", "x", "x.y", "x.y.z", head, f"{head}.{body}", f"{head}.{body}."),
            *(f"{head}..{signature}", f".{body}.{signature}", f".{token}", f"{token}.", f"{head}.{token}"),
            *(f"{token}.{signature}", f"{token}..", "." * 5_000, f"{head},{body},{signature}"),
            f"{head}.{body}.{signature}.{body}.{signature}",  # as a JWE has
            f"{body}.{head}.{signature}",
            f"{signature}.{body}.{head}",
        ):
            yield Forgery(f"{text.count('.') + 1} segments: {text[:40]}", text)

    def encrypted(self) -> Iterator[Forgery]:
        """JWEs: of PBES2 with very many rounds, with a compressed payload, and with our own public key."""
        for about, header in {
            "PBES2": {"alg": "PBES2-HS512+A256KW", "enc": "A256GCM", "p2c": 2_147_483_647, "p2s": "c2FsdA"},
            "zip": {"alg": "dir", "enc": "A256GCM", "zip": "DEF"},
            "RSA-OAEP": {"alg": "RSA-OAEP", "enc": "A256GCM", "kid": self.header["kid"], "typ": self.header["typ"]},
            "dressed as ours": {**self.header, "enc": "A256GCM"},
        }.items():
            head = base64url(json.dumps(header).encode())
            yield Forgery(about, f"{head}.{'.'.join(base64url(bytes(size)) for size in (256, 12, 600, 16))}")

    def json_serializations(self) -> Iterator[Forgery]:
        head, body, signature = self.honest.split(".")
        flattened = {"payload": body, "protected": head, "signature": signature}
        general = {"payload": body, "signatures": [{"protected": head, "signature": signature}]}
        for members in (flattened, general, {**flattened, "header": {"kid": self.header["kid"]}}):
            yield Forgery("JSON", json.dumps(members, separators=(",", ":")))
            yield Forgery("JSON, encoded", base64url(json.dumps(members).encode()))

    def too_long(self) -> Iterator[Forgery]:
        yield Forgery("a little longer", self._of_length(longer_than=LONGEST))
        yield Forgery("a million", compact(self.header, {**self.claims, "x": "x" * 1_000_000}, self.sign))
        head, body, signature = self.honest.split(".")
        for index in range(3):
            segments = [head, body, signature]
            segments[index] = "A" * 5_000_000
            yield Forgery(f"segment {index} of five million", ".".join(segments))

    def longest(self) -> str:
        """An honest token as long as it may be."""
        return self._of_length(longer_than=LONGEST - 4)

    def _of_length(self, *, longer_than: int) -> str:
        def token(size: int, signer: Signer) -> str:
            return compact(self.header, {**self.claims, "x": "x" * size}, signer)

        sizes = (size for size in range(4_000, 7_000) if len(token(size, lambda _signed: bytes(256))) > longer_than)
        return token(next(sizes), self.sign)

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
            moment = self.now + int(seconds)
            return str(moment) if text else moment
        for name, filling in self.fillings.items():
            value = value.replace(f"<{name}>", filling)
        return value


def forger_of(issuer: FakeIssuer, **token: Any) -> Forger:
    """A forger with the key that `issuer` signs with now, and a token of its; arguments as `FakeIssuer.token` takes."""
    key = issuer._keys[issuer.kid]  # which nobody but a forger has a use for
    honest = issuer.token(**token)
    fillings = {"issuer": issuer.issuer, "kid": issuer.kid, "sid": claims_of(honest).get("sid", "")}
    fillings |= {"other user": "somebody else", "other session": "another session"}
    forger = Forger(honest, key, int(issuer.clock.time()), fillings)
    # Put together as the forgeries are, so that nothing but the one change tells them apart.
    return replace(forger, honest=compact(forger.header, forger.claims, forger.sign))


def compact(header: dict[str, Any] | bytes, claims: dict[str, Any] | bytes, signer: Signer) -> str:
    """A compact JWS of these parts, whatever they are."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
    signed = ".".join(map(base64url, parts))
    return f"{signed}.{base64url(signer(signed.encode()))}"


def authorization(value: str) -> list[tuple[bytes, bytes]]:
    """The header with these bytes: Latin-1, and UTF-8 for what that lacks."""
    encoding = "utf-8" if any(character > "\xff" for character in value) else "latin-1"
    return [(b"Authorization", value.encode(encoding))]


def _hmac_signer(secret: bytes, digest: str) -> Signer:
    return lambda signed: hmac.digest(secret, signed, digest)


def _plus_modulus(signature: bytes, key: RSAPrivateKey) -> bytes:
    """The same signature to whoever reduces it before looking at its length (RFC 8017 §8.2.2, step 1)."""
    number = int.from_bytes(signature, "big") + key.public_key().public_numbers().n
    return number.to_bytes(257, "big")


def _same_byte(character: str, *, unused_bits: int) -> Iterator[str]:
    """The other characters that a lax base64url decoder reads as the same last byte."""
    value = ALPHABET.index(character) >> unused_bits << unused_bits
    for bits in range(1, 1 << unused_bits):
        yield ALPHABET[value | bits]
