"""Forged tokens: what the issuer must refuse as a bearer access token and as a refresh token.

The vectors are in `data/forged_tokens.json`; what JSON cannot carry is made here. Most of them are signed with the
service's real key: a good signature must not make up for anything else.
"""

import json
import socket
import time
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, RSAPublicNumbers

from auth_service.keys.signing_key import new_private_key, thumbprint
from tests.support.forgery import LONGEST, VECTORS, Forger, Forgery, authorization, compact
from tests.support.service import Service, SignedIn, problem
from tests.support.stores import ISSUER
from tests.support.tokens import claims_of, generation_of


@dataclass(frozen=True, slots=True)
class _Attack:
    """A signed-in user whose tokens are forged, another one who is to be impersonated, and every key there is."""

    service: Service
    user: SignedIn
    forgers: dict[str, Forger]
    attackers_key: RSAPrivateKey

    async def expect_refused(self, kind: str, forged: str, about: str, *, code: str = "invalid_token") -> None:
        """`forged` must be refused wherever a token of this kind is taken."""
        if kind == "access":
            answer = await self.service.http.get("/user/me", headers=authorization(f"Bearer {forged}"))
            # RFC 6750 §3.1: the scheme, and then not one token, is a malformed request.
            one = bool(forged) and not set(forged) & set(" \t")
            refusal = (401, code) if one else (400, "invalid_request")
            assert problem(answer) == refusal, (about, answer.text)
            assert f'error="{refusal[1]}"' in answer.headers["www-authenticate"], about
            return
        answer = await self.service.refresh(forged)
        if not forged or len(forged) > LONGEST or "\0" in forged:
            assert problem(answer) in ((400, "invalid_request"), (413, "payload_too_large")), (about, answer.text)
        else:
            assert problem(answer) == (401, code), (about, answer.text)
        if forged and forged.isascii() and forged.isprintable() and not set(forged) & set(' ,;"\\'):
            answer = await self.service.http.post(
                "/user/refresh-token",
                headers={"Cookie": f"__Host-refresh_token={forged}", "Origin": "https://app.test"},
            )
            assert problem(answer) == (401, code), (f"{about}, in the cookie", answer.text)

    async def expect_all_refused(self, kind: str, forgeries: Iterable[Forgery]) -> None:
        for forgery in forgeries:
            await self.expect_refused(kind, forgery.token, forgery.about)


@pytest.fixture(scope="module")
def attackers_key() -> RSAPrivateKey:
    return new_private_key(2048)


@pytest.fixture
async def attack(service: Service, attackers_key: RSAPrivateKey) -> AsyncIterator[_Attack]:
    """What a forger has. When the test ends, the session must be as it was: alive, and never rotated."""
    key = service.app.parts.keys.signing_key(await service.app.parts.database.now())
    assert key.private_key is not None
    user, other = await service.register(), await service.register()
    fillings = {
        "issuer": ISSUER,
        "kid": key.kid,
        "sid": claims_of(user.access_token)["sid"],
        "other user": other.id,
        "other session": claims_of(other.access_token)["sid"],
    }
    now, honest = int(time.time()), {"access": user.access_token, "refresh": user.refresh_token}
    forgers = {kind: Forger(token, key.private_key, now, fillings) for kind, token in honest.items()}
    yield _Attack(service, user, forgers, attackers_key)
    assert (await service.me(user.access_token)).status_code == 200
    assert generation_of(await service.refreshed(user.refresh_token)) == 2
    [row] = await service.sql("SELECT count(*) AS ended FROM sessions WHERE revoked_at IS NOT NULL")
    assert row["ended"] == 0


both_kinds = pytest.mark.parametrize("kind", ["access", "refresh"])


async def test_a_token_forged_without_any_fault_is_accepted(attack: _Attack) -> None:
    """Or the other tests would pass for want of a signature."""
    for typ in ("at+jwt", "application/at+jwt"):
        access_token = attack.forgers["access"].changed({"set": {"typ": typ, "extra": "x"}}, part="header")
        assert (await attack.service.me(access_token)).status_code == 200
    refresh_token = attack.forgers["refresh"].changed({"set": {"gen": 1, "extra": [1]}}, part="claims")
    assert generation_of(await attack.service.refreshed(refresh_token)) == 2


async def test_each_kind_is_refused_where_the_other_is_expected(attack: _Attack) -> None:
    await attack.expect_refused("access", attack.user.refresh_token, "a refresh token as bearer")
    await attack.expect_refused("refresh", attack.user.access_token, "an access token as refresh token")
    for kind, types in {
        "access": ("rt+jwt", "application/rt+jwt"),
        "refresh": ("at+jwt", "application/at+jwt", "application/rt+jwt"),
    }.items():
        for typ in types:
            forged = attack.forgers[kind].changed({"set": {"typ": typ}}, part="header")
            await attack.expect_refused(kind, forged, typ)


@both_kinds
async def test_a_header_that_we_never_write_is_refused(attack: _Attack, kind: str) -> None:
    for vector in VECTORS["headers"]:
        forged = attack.forgers[kind].changed(vector, part="header")
        await attack.expect_refused(kind, forged, vector["about"])


@both_kinds
async def test_claims_that_we_never_write_are_refused(attack: _Attack, kind: str) -> None:
    for vector in VECTORS[f"{kind}_claims"]:
        forged = attack.forgers[kind].changed(vector, part="claims")
        await attack.expect_refused(kind, forged, vector["about"], code=vector.get("code", "invalid_token"))


@both_kinds
async def test_a_number_that_is_not_json_or_not_finite_is_refused(attack: _Attack, kind: str) -> None:
    names = ("iat", "exp", "gen" if kind == "refresh" else "auth_time", "extra")
    await attack.expect_all_refused(kind, attack.forgers[kind].numbers_that_are_not_json(*names))


@both_kinds
async def test_json_that_two_readers_could_read_differently_is_refused(attack: _Attack, kind: str) -> None:
    await attack.expect_all_refused(kind, attack.forgers[kind].doubled_members())
    await attack.expect_all_refused(kind, attack.forgers[kind].lax_json())


@both_kinds
async def test_a_token_nested_as_deeply_as_it_can_be_is_refused(attack: _Attack, kind: str) -> None:
    forger = attack.forgers[kind]
    await attack.expect_all_refused(kind, forger.nested())
    # With everything that is asked for beside it: how deep Python's own reader goes depends on its version.
    for depth in (500, 1_000, 2_000):
        text = json.dumps(forger.claims).encode()[:-1] + b', "x": ' + b"[" * depth + b"]" * depth + b"}"
        deep_token = compact(forger.header, text, forger.sign)
        assert len(deep_token) <= LONGEST
        if kind == "access":
            answer = await attack.service.me(deep_token)
        else:
            answer = await attack.service.refresh(deep_token)
        assert answer.status_code == 200 or problem(answer) == (401, "invalid_token"), depth


@both_kinds
async def test_a_secret_made_of_our_public_key_signs_nothing(attack: _Attack, kind: str) -> None:
    await attack.expect_all_refused(kind, attack.forgers[kind].keyed_with_the_public_key())


@both_kinds
async def test_another_key_signs_nothing_wherever_the_token_says_it_is(attack: _Attack, kind: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with listener:
        forgeries = attack.forgers[kind].signed_by_another(attack.attackers_key, url=url)
        await attack.expect_all_refused(kind, forgeries)
        with pytest.raises(BlockingIOError):
            listener.accept()  # nobody has called


@both_kinds
async def test_a_signature_that_is_not_pkcs1_sha_256_of_both_segments_is_refused(attack: _Attack, kind: str) -> None:
    await attack.expect_all_refused(kind, attack.forgers[kind].wrong_signatures())


@both_kinds
async def test_a_token_without_signature_is_refused(attack: _Attack, kind: str) -> None:
    await attack.expect_all_refused(kind, attack.forgers[kind].without_signature())


@both_kinds
async def test_a_second_spelling_of_a_good_token_is_refused(attack: _Attack, kind: str) -> None:
    forger = attack.forgers[kind]
    for forgery in forger.second_spellings():
        assert forgery.token != forger.honest, forgery.about
        # White space around the credentials belongs to the header, not to the token: HTTP takes it off.
        if kind == "refresh" or forgery.token.strip(" \t") != forger.honest:
            await attack.expect_refused(kind, forgery.token, forgery.about)


@both_kinds
async def test_anything_but_three_segments_is_refused(attack: _Attack, kind: str) -> None:
    await attack.expect_all_refused(kind, attack.forgers[kind].other_segments())
    await attack.expect_all_refused(kind, attack.forgers[kind].encrypted())


@both_kinds
async def test_the_json_serialization_is_refused(attack: _Attack, kind: str) -> None:
    await attack.expect_all_refused(kind, attack.forgers[kind].json_serializations())


@both_kinds
async def test_a_token_over_8_kib_is_refused_before_it_is_read(attack: _Attack, kind: str) -> None:
    forger = attack.forgers[kind]
    longest = forger.longest()
    assert LONGEST - 4 < len(longest) <= LONGEST
    if kind == "access":
        assert (await attack.service.me(longest)).status_code == 200
        for forgery in forger.too_long():
            await attack.expect_refused(kind, forgery.token, forgery.about)
    else:
        assert (await attack.service.refresh(longest)).status_code == 200
        await attack.expect_refused(kind, next(forger.too_long()).token, "a little longer")


_NOT_ONE_TOKEN = {
    *("Bearer", "Bearer ", "Bearer   ", "bearer", "Bearer\t<token>"),
    *("Bearer <token> <token>", "Bearer <token>, Bearer <token>", "Bearer Bearer <token>", "Bearer [object Object]"),
}


async def test_an_authorization_header_that_is_not_one_bearer_token_is_refused(attack: _Attack) -> None:
    for vector in VECTORS["authorization"]:
        value = vector.replace("<token>", attack.user.access_token)
        answer = await attack.service.http.get("/user/me", headers=authorization(value))
        # RFC 6750 §3.1: the scheme, and then not one token, is a request that is malformed.
        refusal = (400, "invalid_request") if vector in _NOT_ONE_TOKEN else (401, "invalid_token")
        assert problem(answer) == refusal, (vector, answer.text)
    assert set(VECTORS["authorization"]) >= _NOT_ONE_TOKEN
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
    jwk, _standby = (await service.http.get("/.well-known/jwks.json")).json()["keys"]
    assert jwk.keys() == {"kty", "n", "e", "kid", "alg", "use"}
    assert (jwk["kty"], jwk["alg"], jwk["use"]) == ("RSA", "RS256", "sig")
    e, n = (int.from_bytes(urlsafe_b64decode(jwk[name] + "=="), "big") for name in ("e", "n"))
    assert jwk["kid"] == thumbprint(RSAPublicNumbers(e, n).public_key())
