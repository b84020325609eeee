"""The verifier and the tokens that it must refuse, and why: directly, and over HTTP behind `BearerMiddleware`.

Each case is an honest token with one change, and each is held against its honest twin, so that no case passes for a
reason of its own making. The parameters name lines V1 to V8 of the security checklist and the flaws that other projects
had.
"""

import contextlib
import copy
import itertools
import json
import pickle
import random
import socket
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from auth_service.verifier import (
    AccessTokenClaims,
    BearerMiddleware,
    ExpiredToken,
    InvalidClaim,
    InvalidToken,
    JWTUser,
    MalformedToken,
    RevokedToken,
    UnknownKey,
    Verifier,
    requires,
)
from auth_service.verifier import errors as verifier_errors
from auth_service.verifier.jwks import UnusableKeySet, parse_jwks
from auth_service.verifier.jws import json_object
from auth_service.verifier.testing import FakeIssuer
from auth_service.verifier.token_cache import TokenCache, VerifiedToken
from tests.support.forgery import ALPHABET, LONGEST, VECTORS, Forger, Forgery, authorization, compact, forger_of
from tests.support.stores import ISSUER
from tests.support.tokens import base64url, claims_of, header_of

_FOR_OTHERS: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "claims_for_others.json").read_text("ascii"))
_JWKS = "/.well-known/jwks.json"
_OWN_ADDRESSES = {"/.well-known/oauth-authorization-server", _JWKS, "/revocations"}
_AUDIENCE = "orders"


@dataclass(frozen=True, slots=True)
class _Downstream:
    """A service behind the middleware, its issuer, and a forger with the issuer's key."""

    issuer: FakeIssuer
    verifier: Verifier
    http: httpx2.AsyncClient
    forger: Forger

    async def get(self, access_token: str) -> httpx2.Response:
        return await self.http.get("/orders", headers=authorization(f"Bearer {access_token}"))

    async def expect_accepted(self, access_token: str) -> None:
        """By both: with the claims that are in it."""
        assert (await self.verifier.verify(access_token)).claims == claims_of(access_token)
        assert (await self.get(access_token)).json() == claims_of(access_token)

    async def expect_refused(self, forgery: Forgery) -> None:
        """By both, for the reason that is said; and its honest twin is accepted at the same moment."""
        about, access_token, error = forgery
        assert access_token != self.forger.honest, about
        with pytest.raises(InvalidToken) as refused:
            await self.verifier.verify(access_token)
        assert isinstance(refused.value, error), f"{about}: {refused.value!r}"
        answer = await self.get(access_token)
        if access_token.strip(" ") == self.forger.honest:
            assert answer.status_code == 200, about  # space around credentials is HTTP's: it is not in the token
        elif not access_token or " " in access_token or "\t" in access_token:
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request"), about
        else:
            assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token"), about
            assert 'error="invalid_token"' in answer.headers["www-authenticate"], about
        assert (await self.verifier.verify(self.forger.honest)).claims == self.forger.claims, about


@requires("orders:read")
async def _orders(request: Request) -> Response:
    return JSONResponse(dict(request.auth.claims))


@pytest.fixture(scope="module")
def attackers_key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def issuer() -> FakeIssuer:
    return FakeIssuer(ISSUER, audience=_AUDIENCE)


@pytest.fixture
async def downstream(issuer: FakeIssuer) -> AsyncIterator[_Downstream]:
    """Asks for `orders` or, for the vectors that it shares with the issuer's own routes, for the issuer as audience.

    Whatever the test does, nothing but the issuer's own addresses is ever asked for, and the keys at most twice: when
    it opens, and for any number of unknown names while the clock stands still.
    """
    async with issuer.verifier(audience=(_AUDIENCE, ISSUER), leeway=0) as verifier:
        app = Starlette(
            routes=[Route("/orders", _orders)], middleware=[Middleware(BearerMiddleware, verifier=verifier)]
        )
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="https://orders.test") as http:
            yield _Downstream(issuer, verifier, http, forger_of(issuer, scope="orders:read", username="ada"))
    assert set(issuer.requests) <= _OWN_ADDRESSES
    assert issuer.requests.count(_JWKS) <= 2


def _error(vector: dict[str, Any], default: type[InvalidToken]) -> type[InvalidToken]:
    error: type[InvalidToken] = getattr(verifier_errors, vector["verifier"]) if "verifier" in vector else default
    return error


def _headers(*names: str) -> Callable[[Forger], Iterator[Forgery]]:
    """The header vectors that touch one of these members."""

    def forgeries(forger: Forger) -> Iterator[Forgery]:
        for vector in VECTORS["headers"]:
            if not {*vector.get("set", ()), *vector.get("drop", ())}.isdisjoint(names):
                forged = forger.changed(vector, part="header")
                yield Forgery(vector["about"], forged, _error(vector, MalformedToken))

    return forgeries


def _claims(vectors: Iterable[dict[str, Any]]) -> Callable[[Forger], Iterator[Forgery]]:
    def forgeries(forger: Forger) -> Iterator[Forgery]:
        for vector in vectors:
            forged = forger.changed(vector, part="claims")
            yield Forgery(vector["about"], forged, _error(vector, InvalidClaim))

    return forgeries


_MISTYPED = [vector for vector in VECTORS["access_claims"] if vector.get("verifier") != "accepted"]
_OTHERWISE_GOOD = [vector for vector in VECTORS["access_claims"] if vector.get("verifier") == "accepted"]

_FORGERIES: dict[str, Callable[[Forger], Iterable[Forgery]]] = {
    "V1: alg": _headers("alg", "ALG"),
    "V1: the public key as HMAC secret (CVE-2022-29217, CVE-2024-37568, CVE-2024-33663, CVE-2026-48526)": (
        Forger.keyed_with_the_public_key
    ),
    "V1: signatures of another kind": Forger.wrong_signatures,
    "V1: no signature": Forger.without_signature,
    "V2: typ": _headers("typ", "Typ"),
    "V3: a second spelling (GHSA-hxm8-2xgr-2p9m)": Forger.second_spellings,
    "V3: not three segments": Forger.other_segments,
    "V3: JWE (CVE-2022-36083, CVE-2024-28176, CVE-2024-33664, CVE-2023-51774)": Forger.encrypted,
    "V3: JSON serialization": Forger.json_serializations,
    "V3: over 8 KiB (CVE-2025-61920)": Forger.too_long,
    "V4: claims missing or mistyped": _claims(_MISTYPED),
    "V4: numbers that are none": lambda forger: forger.numbers_that_are_not_json("iat", "exp", "nbf", "auth_time", "x"),
    "V4: duplicate members": Forger.doubled_members,
    "V4: JSON that is none": Forger.lax_json,
    "V4: nesting (GHSA-8wjv-2p76-3863)": Forger.nested,
    "V7: crit, b64, zip (CVE-2026-32597, CVE-2025-59420)": _headers("crit", "b64", "zip"),
    "V8: kid": _headers("kid"),
    **{line: _claims(vectors) for line, vectors in _FOR_OTHERS.items()},
}


@pytest.mark.parametrize("line", _FORGERIES)
async def test_a_forged_token_is_refused(downstream: _Downstream, line: str) -> None:
    await downstream.expect_accepted(downstream.forger.honest)
    count = 0
    for count, forgery in enumerate(_FORGERIES[line](downstream.forger), 1):  # noqa: B007
        await downstream.expect_refused(forgery)
    assert count >= 4


async def test_a_token_that_says_where_its_key_is_causes_no_request(
    downstream: _Downstream, attackers_key: RSAPrivateKey
) -> None:
    """V7: jwk, jku, x5u, x5c. Authlib before 1.6.9 took the key that a header brought with it."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with listener:
        for forgery in downstream.forger.signed_by_another(attackers_key, url=url):
            await downstream.expect_refused(forgery)
        for vector in ({"iss": url}, {"iss": f"{ISSUER}@{url[7:]}"}):
            forged = downstream.forger.changed({"set": vector}, part="claims")
            await downstream.expect_refused(Forgery(str(vector), forged, InvalidClaim))
        for name in ("jku", "jwks_uri", "x5u", "sub", "url"):
            await downstream.expect_accepted(downstream.forger.changed({"set": {name: url}}, part="claims"))
        with pytest.raises(BlockingIOError):
            listener.accept()  # nobody has called


async def test_each_refused_claim_is_named(downstream: _Downstream) -> None:
    """So that none is refused in place of another."""
    for vector in itertools.chain(_MISTYPED, *_FOR_OTHERS.values()):
        changed = [*vector.get("set", ()), *vector.get("drop", ())]
        if len(changed) == 1 and _error(vector, InvalidClaim) is InvalidClaim:
            with pytest.raises(InvalidClaim) as refused:
                await downstream.verifier.verify(downstream.forger.changed(vector, part="claims"))
            assert refused.value.claim == changed[0], vector["about"]


async def test_what_only_the_issuer_can_know_is_not_refused(downstream: _Downstream) -> None:
    """A signed token is its issuer's word on whose it is."""
    for vector in _OTHERWISE_GOOD:
        await downstream.verifier.verify(downstream.forger.changed(vector, part="claims"))
    for vector in ({"extra": [1, {"x": None}]}, {"": 1}, {"nbf": 0}, {"auth_time": 1.5}, {"scope": "orders:read x y"}):
        await downstream.expect_accepted(downstream.forger.changed({"set": vector}, part="claims"))
    for typ in ("at+jwt", "application/at+jwt"):
        header: dict[str, Any] = {"set": {"typ": typ, "extra": 1, "nonce": "x", "epk": {}}}
        await downstream.expect_accepted(downstream.forger.changed(header, part="header"))
    longest = downstream.forger.longest()
    assert LONGEST - 4 < len(longest) <= LONGEST
    await downstream.expect_accepted(longest)


@pytest.mark.parametrize(
    "alg", ["HS256", "RS384", "RS512", "PS256", "RSA-OAEP", "rs256", "none", "", None, 256, ["RS256"]]
)
def test_a_key_that_is_for_another_algorithm_is_not_used(attackers_key: RSAPrivateKey, alg: object) -> None:
    """V1, PyJWT GHSA-jq35-7prp-9v3f: what the verifier allows and what the key is for must both be RS256."""
    modulus = base64url(attackers_key.public_key().public_numbers().n.to_bytes(256, "big"))
    jwk = {"kty": "RSA", "kid": "a key", "use": "sig", "n": modulus, "e": "AQAB"}
    assert parse_jwks(json.dumps({"keys": [{**jwk, "alg": "RS256"}]}).encode(), known={}).keys() == {"a key"}
    with pytest.raises(UnusableKeySet):
        parse_jwks(json.dumps({"keys": [{**jwk, "alg": alg}]}).encode(), known={})


async def test_any_number_of_unknown_keys_costs_one_fetch(downstream: _Downstream) -> None:
    """V8, PyJWT CVE-2026-48524 and GHSA-2gx3-rcp4-g85q."""
    unsigned = downstream.forger.honest.split(".")[1:]
    for number in range(1_000):
        header = base64url(json.dumps({**downstream.forger.header, "kid": f"key-{number}"}).encode())
        with pytest.raises(UnknownKey):
            await downstream.verifier.verify(".".join([header, *unsigned]))
    await downstream.expect_accepted(downstream.forger.honest)
    assert downstream.issuer.requests.count(_JWKS) == 2


async def test_a_token_of_fifty_million_characters_is_not_decoded(downstream: _Downstream) -> None:
    """V3, Authlib CVE-2025-61920: it took eight times its size."""
    huge = "A" * 50_000_000 + ".e30.AA"
    tracemalloc.start()
    try:
        with pytest.raises(MalformedToken):
            await downstream.verifier.verify(huge)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("document", [b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"":' * 100_000])
def test_json_nested_a_hundred_thousand_times_is_malformed(document: bytes) -> None:
    """PyJWT GHSA-8wjv-2p76-3863: for keys as for tokens, whatever bounds their length."""
    with pytest.raises(MalformedToken):
        json_object(document)
    with pytest.raises(UnusableKeySet):
        parse_jwks(document, known={})


async def test_a_revocation_names_what_a_token_says_and_not_how_it_is_spelt(downstream: _Downstream) -> None:
    """PyJWT GHSA-hxm8-2xgr-2p9m."""
    forger = downstream.forger
    spelt = [
        compact(forger.header, json.dumps(forger.claims, indent=indent, sort_keys=sort_keys).encode(), forger.sign)
        for indent, sort_keys in itertools.product((None, 1, 2), (False, True))
    ]
    for access_token in spelt:
        await downstream.expect_accepted(access_token)
    downstream.issuer.revoke(jti=forger.claims["jti"])
    for access_token in spelt:
        with pytest.raises(RevokedToken):
            await downstream.verifier.verify(access_token)
    await downstream.expect_accepted(downstream.issuer.token(scope="orders:read"))


@pytest.mark.parametrize("vector", VECTORS["authorization"])
async def test_an_authorization_header_that_is_not_one_bearer_token_is_refused(
    downstream: _Downstream, vector: str
) -> None:
    """Auth.js GHSA-xmf8-cvqr-rfgj."""
    value = vector.replace("<token>", downstream.forger.honest)
    answer = await downstream.http.get("/orders", headers=authorization(value))
    assert answer.status_code in (400, 401)
    assert answer.headers["www-authenticate"].startswith('Bearer realm="orders"')
    await downstream.expect_accepted(downstream.forger.honest)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.test",
        "evil.test/public?",
        "evil.test/orders#",
        "x@evil.test",
        "[::1",
        ":",
        "a b",
        "\xff",
        "../..",
        "x\\y",
    ],
)
async def test_a_hostile_host_changes_nothing(downstream: _Downstream, host: str) -> None:
    """Starlette CVE-2026-48710 and CVE-2026-54282: nothing is decided by an address made of it."""
    hosts = [(b"Host", host.encode("latin-1"))]
    good, bad = downstream.forger.honest, f"{downstream.forger.honest}A"
    for headers, status in (
        (hosts, 401),
        (hosts + authorization(f"Bearer {bad}"), 401),
        (hosts + authorization(f"Bearer {good}"), 200),
        (hosts + authorization(f"Bearer {good}") + hosts, 200),
    ):
        assert (await downstream.http.get("/orders", headers=headers)).status_code == status


# The claims


@pytest.mark.parametrize("leeway", [0, 1, 5, 29.5, 30])
def test_the_leeway_is_forgiven_to_the_second_and_no_longer(leeway: float) -> None:
    """V6, RFC 7519 §4.1: a token is good from `iat` and `nbf` on, and no longer good at `exp`."""
    now = 1_900_000_000.0
    for name, change, error in (
        ("exp", -leeway, ExpiredToken),
        ("exp", -leeway - 0.25, ExpiredToken),
        ("exp", -leeway + 0.25, None),
        ("iat", leeway, None),
        ("iat", leeway + 0.25, InvalidClaim),
        ("nbf", leeway, None),
        ("nbf", leeway + 0.25, InvalidClaim),
    ):
        payload = {**_PAYLOAD, "iat": now - 60, "exp": now + 600, name: now + change}
        with contextlib.nullcontext() if error is None else pytest.raises(error):
            _parsed(payload, now=now, leeway=leeway)


@pytest.mark.parametrize("leeway", [-1, -0.001, 30.001, 3_600, float("inf"), float("nan")])
def test_more_than_thirty_seconds_of_leeway_is_not_to_be_had(issuer: FakeIssuer, leeway: float) -> None:
    with pytest.raises(ValueError, match="leeway"):
        issuer.verifier(leeway=leeway)
    with pytest.raises(ValueError, match="leeway"):
        _parsed(_PAYLOAD, leeway=leeway)


async def test_the_leeway_holds_for_remembered_tokens_and_new_ones(issuer: FakeIssuer) -> None:
    async with issuer.verifier(leeway=10) as verifier:
        early = issuer.token(expires_in=60)
        await verifier.verify(early)
        issuer.advance(68)
        await verifier.verify(early)
        await verifier.verify(issuer.token(expires_in=-8))
        issuer.advance(2)
        for access_token in (early, issuer.token(expires_in=-10)):
            with pytest.raises(ExpiredToken):
                await verifier.verify(access_token)


def test_one_common_audience_is_enough() -> None:
    for audience, ours, good in (
        ("orders", ["orders"], True),
        (["orders"], ["orders"], True),
        (["billing", "orders", "stock"], ["orders"], True),
        (["orders", "orders"], ["orders"], True),
        ("orders", ["stock", "orders"], True),
        (["billing", "stock"], ["orders", "stock"], True),
        ("billing", ["orders", "stock"], False),
        (["billing"], ["orders"], False),
        ([], ["orders"], False),
    ):
        with contextlib.nullcontext() if good else pytest.raises(InvalidClaim):
            claims = _parsed({**_PAYLOAD, "aud": audience}, audience=ours)
            assert claims.audience == ((audience,) if isinstance(audience, str) else tuple(audience))


@pytest.mark.parametrize("audience", ["", [], [""], ["orders", ""], None, [1], ["orders", None], 7, b"orders"])
def test_a_verifier_without_an_audience_is_not_to_be_had(audience: Any) -> None:
    with pytest.raises(ValueError, match="audience"):
        Verifier(ISSUER, audience=audience)


def test_a_scope_is_what_stands_between_spaces() -> None:
    """RFC 6749 §3.3: case matters, order and repetition do not."""
    for scope, found in {
        "": set(),
        " ": set(),
        "orders:read": {"orders:read"},
        "orders:read orders:write": {"orders:read", "orders:write"},
        "orders:write  orders:read orders:read ": {"orders:read", "orders:write"},
        "Orders:read ORDERS:READ": {"Orders:read", "ORDERS:READ"},
        "orders:read,orders:write": {"orders:read,orders:write"},
        "orders:read\torders:write": {"orders:read\torders:write"},
        "orders:read\u00a0orders:write": {"orders:read\u00a0orders:write"},
    }.items():
        assert _parsed({**_PAYLOAD, "scope": scope}).scope == found
    assert _parsed({name: value for name, value in _PAYLOAD.items() if name != "scope"}).scope == frozenset()


@pytest.mark.parametrize(
    "scope",
    ["", "orders", "orders:", "orders:rea", "orders:reads", "ORDERS:READ", "orders:read,x", "orders:read\tx", "*"],
)
async def test_a_scope_that_is_only_like_the_one_asked_for_is_not_enough(downstream: _Downstream, scope: str) -> None:
    answer = await downstream.get(downstream.issuer.token(scope=scope))
    assert (answer.status_code, answer.json()["error"]) == (403, "insufficient_scope")
    assert 'scope="orders:read"' in answer.headers["www-authenticate"]


async def test_a_service_token_has_no_session_and_ends_with_its_client(downstream: _Downstream) -> None:
    access_token = downstream.issuer.token(sid=None, sub="stock", client_id="stock", scope="orders:read")
    claims = await downstream.verifier.verify(access_token)
    assert (claims.session_id, claims.subject, claims.client_id, claims.username) == (None, "stock", "stock", None)
    await downstream.expect_accepted(access_token)
    downstream.issuer.revoke(sid="stock")  # the same text of another kind names nothing of it
    downstream.issuer.revoke(jti="stock")
    await downstream.expect_accepted(access_token)
    downstream.issuer.revoke(client_id="stock")
    with pytest.raises(RevokedToken):
        await downstream.verifier.verify(access_token)
    await downstream.expect_accepted(downstream.forger.honest)


_PAYLOAD: dict[str, Any] = {
    "iss": ISSUER,
    "sub": "somebody",
    "aud": "orders",
    "client_id": "web",
    "jti": "an id",
    "scope": "orders:read",
    "iat": 1_900_000_000,
    "exp": 1_900_000_600,
}


def _parsed(
    payload: dict[str, Any], *, audience: Collection[str] = ("orders",), now: float = 1_900_000_000, leeway: float = 0
) -> AccessTokenClaims:
    return AccessTokenClaims.parse(payload, issuer=ISSUER, audience=audience, now=now, leeway=leeway)


# The cache


async def test_a_changed_token_never_hits_the_entry_of_its_original(downstream: _Downstream) -> None:
    forger, verifier = downstream.forger, downstream.verifier
    remembered = await verifier.authenticate(forger.honest)
    for forgery in itertools.chain(forger.second_spellings(), forger.wrong_signatures(), forger.other_segments()):
        for _attempt in range(2):
            with pytest.raises(InvalidToken):
                await verifier.authenticate(forgery.token)
    respelt = compact(forger.header, json.dumps(forger.claims, indent=1).encode(), forger.sign)
    assert await verifier.authenticate(respelt) is not remembered
    assert await verifier.authenticate(forger.honest) is remembered


@pytest.mark.parametrize("named", ["sid", "jti", "client_id", "kid"])
async def test_a_remembered_token_is_refused_once_it_is_revoked(downstream: _Downstream, named: str) -> None:
    forger, issuer = downstream.forger, downstream.issuer
    await downstream.expect_accepted(forger.honest)
    issuer.revoke(**{named: {**forger.header, **forger.claims}[named]})
    with pytest.raises(RevokedToken):
        await downstream.verifier.verify(forger.honest)
    assert (await downstream.get(forger.honest)).status_code == 401
    await downstream.expect_accepted(issuer.token(sid="another", client_id="another", scope="orders:read"))


async def test_a_remembered_token_is_refused_once_it_has_expired(downstream: _Downstream) -> None:
    access_token = downstream.issuer.token(scope="orders:read", expires_in=60)
    downstream.issuer.advance(58)
    await downstream.expect_accepted(access_token)
    downstream.issuer.advance(2)
    for _attempt in range(2):
        with pytest.raises(ExpiredToken):
            await downstream.verifier.verify(access_token)


async def test_a_remembered_token_is_refused_once_its_key_is_published_no_more(issuer: FakeIssuer) -> None:
    async with issuer.verifier() as verifier:
        access_token, kid = issuer.token(), issuer.kid
        await verifier.verify(access_token)
        issuer.rotate()
        issuer.remove(kid)
        await verifier.verify(issuer.token())  # its key is new: the set is fetched
        with pytest.raises(UnknownKey):
            await verifier.verify(access_token)


async def test_no_more_tokens_are_remembered_than_was_asked_for(issuer: FakeIssuer) -> None:
    async with issuer.verifier(cache_size=8) as verifier:
        verified = {
            access_token: await verifier.authenticate(access_token)
            for access_token in (issuer.token() for _ in range(80))
        }
        # The latest first: what is remembered anew on the way displaces nothing that is still to be asked for.
        again = [
            await verifier.authenticate(access_token) is first for access_token, first in reversed(verified.items())
        ]
        assert 4 <= again.count(True) <= 8


@pytest.mark.parametrize("size", [0, 1, 2, 3, 64, 1_000])
async def test_the_cache_is_bounded_and_keeps_what_is_used(issuer: FakeIssuer, size: int) -> None:
    async with issuer.verifier() as verifier:
        verified = await verifier.authenticate(issuer.token())
    cache = TokenCache(size)
    for number in range(10 * size + 10):
        cache.put(number.to_bytes(32, "big"), verified)
        assert len(cache) <= size
        if size >= 4:
            assert cache.get(bytes(32)) is verified, number


@dataclass(slots=True)
class _Model:
    """What a verifier that remembers nothing would say: which keys it holds, and what has been revoked."""

    published: set[str]
    held: set[str] = field(default_factory=set)
    revoked: set[tuple[str, str]] = field(default_factory=set)
    _fetches: int = 0

    def follow(self, issuer: FakeIssuer) -> None:
        """Hold the keys that are published now, if they have been asked for since the last time."""
        fetches = issuer.requests.count(_JWKS)
        if fetches > self._fetches:
            self._fetches, self.held = fetches, set(self.published)

    def verdict(self, access_token: str, now: float) -> type[InvalidToken] | None:
        kid, claims = header_of(access_token)["kid"], claims_of(access_token)
        if kid not in self.held:
            return UnknownKey
        if claims["exp"] <= now:
            return ExpiredToken
        names = {("kid", kid), *((name, claims[name]) for name in ("sid", "jti", "client_id") if name in claims)}
        return None if names.isdisjoint(self.revoked) else RevokedToken


@pytest.mark.parametrize("seed", range(4))
async def test_a_verifier_that_remembers_says_what_one_that_forgets_would(seed: int) -> None:
    """Whatever is issued, asked, changed, revoked, rotated, removed or waited for in between."""
    choices = random.Random(seed)  # noqa: S311 — the same ones in every run
    issuer = FakeIssuer(ISSUER, audience=_AUDIENCE)
    model = _Model(published={issuer.kid})
    access_tokens: list[str] = []
    met: Counter[type[InvalidToken] | None] = Counter()
    remembered: dict[str, VerifiedToken] = {}
    hits = 0
    async with issuer.verifier(leeway=0, cache_size=16) as verifier:
        for step in range(2_000):
            happening = choices.random()
            if happening < 0.15 or not access_tokens:
                sid = choices.choice([None, f"session {step // 100}", f"session {step // 20}"])
                client_id = choices.choice(["web", f"client {step // 200}"])
                life = choices.randint(5, 200)
                access_tokens = [*access_tokens[-30:], issuer.token(sid=sid, client_id=client_id, expires_in=life)]
            elif happening < 0.22:
                issuer.advance(choices.uniform(0, 15))
            elif happening < 0.25:
                access_token = choices.choice(access_tokens)
                named = choices.choice(["sid", "jti", "jti", "client_id"])
                value = claims_of(access_token).get(named)
                if value is not None and value != "web":
                    issuer.revoke(**{named: value})
                    model.revoked.add((named, value))
            elif happening < 0.255:
                kid = choices.choice(sorted(model.published))
                if choices.random() < 0.5:
                    issuer.revoke(kid=kid)
                    model.revoked.add(("kid", kid))
                else:
                    if kid == issuer.kid:
                        issuer.rotate()
                    issuer.remove(kid)
                model.published.discard(kid)
                model.published.add(issuer.kid)
            elif happening < 0.4:
                access_token = choices.choice(access_tokens)
                place = choices.randrange(len(access_token))
                changed = access_token[:place] + choices.choice(ALPHABET + ".=") + access_token[place + 1 :]
                if changed not in access_tokens:
                    with pytest.raises(InvalidToken):
                        await verifier.verify(changed)
            else:
                access_token = choices.choice(access_tokens)
                try:
                    verified = await verifier.authenticate(access_token)
                    assert verified.claims.claims == claims_of(access_token)
                    hits += remembered.get(access_token) is verified
                    remembered[access_token] = verified
                    verdict = None
                except InvalidToken as refused:
                    verdict = type(refused)
                model.follow(issuer)
                assert verdict is model.verdict(access_token, issuer.clock.time()), (seed, step, access_token)
                met[verdict] += 1
            model.follow(issuer)
    assert all(met[verdict] > 20 for verdict in (None, ExpiredToken, RevokedToken, UnknownKey)), met
    assert hits > 100


async def test_a_user_and_the_claims_may_be_copied_and_cross_a_process_and_stay_as_they_were_signed() -> None:
    issuer = FakeIssuer()
    async with issuer.verifier() as verifier:
        claims = await verifier.verify(issuer.token(username="ada", roles=["x"]))
    user = JWTUser(claims)
    ways: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))]  # noqa: S301
    for again in ways:
        assert again(claims) == claims
        assert again(user) == user
        assert again(user).username == "ada"
        with pytest.raises(TypeError):
            again(claims).claims["sub"] = "somebody else"


def test_an_audience_given_as_one_string_is_not_searched_for_parts() -> None:
    """V5, PyJWT CVE-2024-53861."""
    issuer = FakeIssuer()
    payload = claims_of(issuer.token(audience="order"))
    now = issuer.clock.time()
    assert AccessTokenClaims.parse(payload, issuer=issuer.issuer, audience="order", now=now).audience == ("order",)
    with pytest.raises(InvalidClaim):
        AccessTokenClaims.parse(payload, issuer=issuer.issuer, audience="orders-admin", now=now)
