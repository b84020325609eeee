"""What a request may bring as its credentials, and how every adapter must answer it (RFC 6750 §3)."""

from collections.abc import Callable
from dataclasses import dataclass

from auth_service.verifier.testing import FakeIssuer

REALM = 'realm="orders"'
INVALID_TOKEN = (
    f'Bearer {REALM}, error="invalid_token", error_description="The access token is expired, revoked or not valid."'
)
INVALID_REQUEST = f'Bearer {REALM}, error="invalid_request", error_description="Present one access token, in one way."'
INSUFFICIENT_SCOPE = (
    f'Bearer {REALM}, error="insufficient_scope", error_description="The access token does not allow this.",'
    ' scope="orders:read"'
)

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Case:
    """A request for something that needs the scope `orders:read`. `challenge` is None where there must be none."""

    name: str
    headers: Callable[[FakeIssuer], Headers]
    status: int
    challenge: str | None
    query: Callable[[FakeIssuer], str] = lambda _issuer: ""

    def __str__(self) -> str:
        return self.name


def bearer(issuer: FakeIssuer, *, scope: str = "orders:read orders:write", **claims: object) -> Headers:
    return [("Authorization", f"Bearer {issuer.token(scope=scope, **claims)}")]  # type: ignore[arg-type]


def _revoked(issuer: FakeIssuer) -> Headers:
    issuer.revoke(sid="revoked")
    return bearer(issuer, sid="revoked")


def _unsigned(issuer: FakeIssuer) -> Headers:
    [(name, value)] = bearer(issuer)
    return [(name, value[: value.rindex(".") + 1] + "A" * 342)]


def _other_issuer(_issuer: FakeIssuer) -> Headers:
    return bearer(FakeIssuer("https://evil.test", audience="orders"))


def _token(issuer: FakeIssuer) -> str:
    return issuer.token(scope="orders:read")


CASES = [
    Case("a good token", bearer, 200, None),
    Case("a scheme in small letters", lambda i: [("authorization", f"bearer {_token(i)}")], 200, None),
    Case("a scheme in capitals and many spaces", lambda i: [("Authorization", f"BEARER   {_token(i)}")], 200, None),
    Case("no credentials", lambda _: [], 401, f"Bearer {REALM}"),
    Case("another scheme", lambda _: [("Authorization", "Basic dXNlcjpwYXNz")], 401, f"Bearer {REALM}"),
    Case("a token without a scheme", lambda i: [("Authorization", _token(i))], 401, f"Bearer {REALM}"),
    Case("an empty header", lambda _: [("Authorization", "")], 401, f"Bearer {REALM}"),
    Case("a token in the query", lambda _: [], 401, f"Bearer {REALM}", lambda i: f"?access_token={_token(i)}"),
    Case("a token in a cookie", lambda i: [("Cookie", f"access_token={_token(i)}")], 401, f"Bearer {REALM}"),
    Case("another header", lambda i: [("X-Authorization", f"Bearer {_token(i)}")], 401, f"Bearer {REALM}"),
    Case("a scheme alone", lambda _: [("Authorization", "Bearer")], 400, INVALID_REQUEST),
    Case("a tab behind the scheme", lambda i: [("Authorization", f"Bearer\t{_token(i)}")], 400, INVALID_REQUEST),
    Case("two tokens in a header", lambda i: [("Authorization", f"Bearer {_token(i)} x")], 400, INVALID_REQUEST),
    Case("two headers", lambda i: [*bearer(i), *bearer(i)], 400, INVALID_REQUEST),
    Case("two headers of two schemes", lambda i: [("Authorization", "Basic eA=="), *bearer(i)], 400, INVALID_REQUEST),
    Case("garbage", lambda _: [("Authorization", "Bearer garbage")], 401, INVALID_TOKEN),
    Case("two tokens and a comma", lambda i: [("Authorization", f"Bearer {_token(i)},x")], 401, INVALID_TOKEN),
    Case("a bad signature", _unsigned, 401, INVALID_TOKEN),
    Case("another issuer's token", _other_issuer, 401, INVALID_TOKEN),
    Case("another audience's token", lambda i: bearer(i, audience="invoices"), 401, INVALID_TOKEN),
    Case("an expired token", lambda i: bearer(i, expires_in=-60), 401, INVALID_TOKEN),
    Case("a revoked token", _revoked, 401, INVALID_TOKEN),
    Case("no scope", lambda i: bearer(i, scope=""), 403, INSUFFICIENT_SCOPE),
    Case("other scopes", lambda i: bearer(i, scope="orders orders:write orders:reads"), 403, INSUFFICIENT_SCOPE),
    Case(
        "a hostile host and a good token",
        lambda i: [("Host", "evil.test/public?"), *bearer(i)],
        200,
        None,
    ),
    Case("a hostile host alone", lambda _: [("Host", "evil.test/public?")], 401, f"Bearer {REALM}"),
]
