"""A revocation feed that is not public: who may open it, and how a verifier keeps being let in."""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest

from auth_service.audit import OPERATOR
from auth_service.devstack.process import free_port
from auth_service.settings import Settings
from auth_service.verifier import InvalidToken, RevocationsUnavailable, RevokedToken, Unavailable, Verifier
from auth_service.verifier.issuer_client import IssuerClient, IssuerUnreachable
from auth_service.verifier.service_token import ClientCredentials, ServiceTokenSource
from auth_service.verifier.testing import FakeClock, FakeIssuer
from tests.support.balancer import Balancer
from tests.support.command import command
from tests.support.feed import EVENT_STREAM
from tests.support.oauth import Credentials, added_client, new_client, service_token
from tests.support.processes import ServedProcess, served
from tests.support.service import Service, Start, problem

_READ = "revocations:read"
_PROMISED = 2.0  # seconds


@pytest.fixture
async def closed(start: Start) -> Service:
    """A service whose feed is for clients."""
    return await start(revocation_feed="client", audiences="orders")


async def _open(service: Service, access_token: str | None, **headers: str) -> httpx2.Response:
    bearer = {} if access_token is None else {"Authorization": f"Bearer {access_token}"}
    return await service.http.get("/revocations", headers={**bearer, **headers})


async def test_only_a_clients_token_for_it_opens_the_feed(closed: Service) -> None:
    client = await new_client(closed, scope=f"{_READ} auth:admin orders:read")
    user = await closed.register()
    await closed.sql("UPDATE users SET granted_scopes = $1", f"{_READ} auth:admin")
    asked = await closed.login(user, scope=_READ)
    revoked = await service_token(closed, client, scope=_READ)
    await closed.http.post("/oauth/revoke", data={"token": revoked}, auth=client.basic)
    unauthorized = [
        user.access_token, asked.access_token, user.refresh_token, "x", await service_token(closed, client), revoked,
    ]  # fmt: skip
    for headers in ({}, EVENT_STREAM):
        for token in unauthorized:
            answer = await _open(closed, token, **headers)
            assert problem(answer) == (401, "invalid_token")
            assert 'error="invalid_token"' in answer.headers["www-authenticate"]
        nobody = await _open(closed, None, **headers)
        assert problem(nobody) == (401, "invalid_token")
        assert "error" not in nobody.headers["www-authenticate"]
        answer = await _open(closed, await service_token(closed, client, scope="auth:admin"), **headers)
        assert problem(answer) == (403, "insufficient_scope")
        assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
        assert f'scope="{_READ}"' in answer.headers["www-authenticate"]
    good = await service_token(closed, client, scope=_READ)
    assert (await _open(closed, good)).status_code == 200
    closed.advance(seconds=601)
    assert problem(await _open(closed, good)) == (401, "invalid_token")


async def test_a_removed_client_opens_nothing_any_more(closed: Service) -> None:
    client = await new_client(closed, scope=_READ)
    token = await service_token(closed, client, scope=_READ)
    assert (await _open(closed, token)).status_code == 200
    await closed.app.parts.clients.remove(UUID(client.client_id), by=OPERATOR)
    assert problem(await _open(closed, token)) == (401, "invalid_token")


async def test_a_public_feed_asks_nobody_and_says_so_in_the_document(service: Service, closed: Service) -> None:
    assert (await _open(service, None)).status_code == 200
    assert (await _open(service, "garbage")).status_code == 200
    for one, is_public in ((service, True), (closed, False)):
        described = (await one.http.get("/openapi.json")).json()["paths"]["/revocations"]["get"]
        assert ("security" not in described) is is_public
        assert ("403" in described["responses"]) is not is_public


class _Issuer:
    """One process of the service behind a balancer that can cut its connections."""

    def __init__(self, process: ServedProcess, balancer: Balancer, settings: Settings) -> None:
        self.process, self.balancer, self.settings = process, balancer, settings
        self.url = settings.issuer

    async def count(self, sample: str) -> int:
        """The sum of the samples whose line matches. Async: the verifier under test runs in the same event loop."""
        async with httpx2.AsyncClient() as http:
            lines = (await http.get(f"{self.process.internal_url}/metrics")).text.splitlines()
        return int(sum(float(line.split()[-1]) for line in lines if re.match(sample, line)))

    async def openings(self) -> int:
        return await self.count(r'auth_http_requests_total{.*route="/revocations",status="200"')

    async def refusals(self) -> int:
        return await self.count(r'auth_http_requests_total{.*route="/(revocations|oauth/token)",status="4')

    async def tokens(self) -> int:
        return await self.count(r'auth_tokens_issued_total{grant="client_credentials"')


@pytest.fixture
def issuer(settings: Callable[..., Settings], tmp_path: Path) -> Iterator[_Issuer]:
    port = free_port()
    made = settings(issuer=f"http://127.0.0.1:{port}", revocation_feed="client", access_token_ttl=2)
    with served(made, tmp_path) as [process], Balancer([process.port], port=port) as balancer:
        yield _Issuer(process, balancer, made)


@asynccontextmanager
async def _verifier(issuer: _Issuer, credentials: Credentials, **options: Any) -> AsyncIterator[Verifier]:
    async with Verifier(
        issuer.url,
        audience=issuer.url,
        client_id=credentials.client_id,
        client_secret=credentials.client_secret,
        **options,
    ) as verifier:
        yield verifier


async def test_an_open_feed_outlives_its_token_and_is_opened_again_with_a_renewed_one(issuer: _Issuer) -> None:
    client = await asyncio.to_thread(added_client, issuer.settings, "orders", "--scope", _READ)
    async with _verifier(issuer, client) as verifier:
        assert verifier.staleness is not None
        opened_at = time.monotonic()

        async def renewed() -> bool:
            return time.monotonic() - opened_at > 3.5 and await issuer.tokens() >= 4

        async def fresh() -> bool:
            return (verifier.staleness or 0) < _PROMISED

        # Well past the two seconds of the token that it was opened with, and past the renewal of the next ones.
        await _until(renewed)
        assert await issuer.openings() == 1, "the feed was cut"
        await _until(fresh, seconds=_PROMISED)
        issuer.balancer.cut()
        await _until(lambda: _is(issuer.openings(), 2))
        await _until(fresh)
        assert await issuer.refusals() == 0
        # And it is the feed that it should be.
        token = await _service_token(issuer, client)
        await verifier.verify(token)
        form = {"token": token, **client.post}
        async with httpx2.AsyncClient() as http:
            assert (await http.post(f"{issuer.url}/oauth/revoke", data=form)).status_code == 200
        since = time.monotonic()
        await _until(lambda: _raises(verifier.verify(token), RevokedToken))
        assert time.monotonic() - since < _PROMISED


async def test_a_removed_client_is_refused_everywhere_within_two_seconds(issuer: _Issuer) -> None:
    reader = await asyncio.to_thread(added_client, issuer.settings, "reader", "--scope", _READ)
    client = await asyncio.to_thread(added_client, issuer.settings, "orders", "--scope", "orders:read")
    async with _verifier(issuer, reader) as verifier:
        token = await _service_token(issuer, client)
        await verifier.verify(token)
        removed = await asyncio.to_thread(command, "clients", "remove", "orders", settings=issuer.settings)
        assert removed.code == 0, removed.err
        since = time.monotonic()
        await _until(lambda: _raises(verifier.verify(token), RevokedToken))
        assert time.monotonic() - since < _PROMISED
        async with httpx2.AsyncClient(base_url=issuer.url, auth=client.basic) as http:
            for path, form in (
                ("/oauth/token", {"grant_type": "client_credentials"}),
                ("/oauth/revoke", {"token": token}),
                ("/oauth/introspect", {"token": token}),
            ):
                assert (await http.post(path, data=form)).json()["error"] == "invalid_client"
        # Its place in the feed goes with the next connection: from then on what is known here ages.
        gone = await asyncio.to_thread(command, "clients", "remove", "reader", settings=issuer.settings)
        assert gone.code == 0, gone.err
        issuer.balancer.cut()
        another = await asyncio.to_thread(added_client, issuer.settings, "another")
        await _until(lambda: _of((verifier.staleness or 0) > 1))
        still_good = await _service_token(issuer, another)
        with pytest.raises(RevocationsUnavailable):
            verifier.require_fresh(0.5)
        await verifier.verify(still_good)


async def test_wrong_credentials_are_told_in_the_log_and_are_as_an_issuer_that_is_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    issuer = FakeIssuer(audience="orders")
    issuer.require_client("orders", "right")

    async def told(**options: str) -> None:
        async with issuer.verifier(**options) as verifier:
            with pytest.raises(RevocationsUnavailable):
                await verifier.verify(issuer.token())
            with pytest.raises(InvalidToken):
                await verifier.verify("garbage")

    with caplog.at_level(logging.WARNING):
        # At once: each waits for the feed before it opens without.
        await asyncio.gather(
            told(),
            told(client_id="orders", client_secret="kanarie"),
            told(client_id="another", client_secret="right"),
        )
    assert "its revocation feed wants a client_id and a client_secret" in caplog.text
    assert "its token endpoint refuses our client id, secret or scope" in caplog.text
    assert "kanarie" not in caplog.text
    assert 2 <= issuer.requests.count("/oauth/token") <= 8, "a refusal is asked about again and again"


async def test_a_fake_issuer_lets_its_client_follow_the_feed() -> None:
    issuer = FakeIssuer(audience="orders")
    issuer.require_client("orders", "a secret: with % and +")
    verifier = issuer.verifier(client_id="orders", client_secret="a secret: with % and +")
    async with verifier:
        assert (await verifier.verify(issuer.token())).subject == "user-1"
        assert issuer.requests.count("/oauth/token") == 1
        for passed, asked in ((250, 1), (40, 2)):  # half of its life is 300 s; an outage lets 15 s pass
            issuer.advance(passed)
            with issuer.outage():
                pass
            opened = issuer.requests.count("/revocations")
            await _until(lambda opened=opened: _of(issuer.requests.count("/revocations") > opened))  # type: ignore[misc]
            assert issuer.requests.count("/oauth/token") == asked
        # A token that is refused before its time is not presented again.
        issuer.require_client("orders", "a secret: with % and +")
        with issuer.outage():
            pass
        await _until(lambda: _of(issuer.requests.count("/oauth/token") == 3))
        await verifier.verify(issuer.token())


async def test_a_token_is_kept_while_no_new_one_is_to_be_had_and_until_it_expires() -> None:
    clock, answers = FakeClock(), list[httpx2.Response]()
    asked = list[str]()

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.startswith("/.well-known"):
            addresses = {name: f"https://issuer.test/{name}" for name in ("jwks_uri", "token_endpoint")}
            return httpx2.Response(200, json={"issuer": "https://issuer.test", **addresses})
        asked.append(request.content.decode())
        return answers.pop(0)

    def good(name: str) -> httpx2.Response:
        return httpx2.Response(200, json={"access_token": name, "token_type": "bearer", "expires_in": 100})

    issuer = IssuerClient("https://issuer.test", transport=httpx2.MockTransport(answer))
    source = ServiceTokenSource(ClientCredentials("a", "b"), clock)
    answers += [good("first")]
    assert [await source.access_token(issuer) for _ in range(3)] == ["first"] * 3
    assert asked == ["grant_type=client_credentials&scope=revocations%3Aread"]
    clock.advance(51)
    answers += [httpx2.Response(503)]
    assert await source.access_token(issuer) == "first"
    clock.advance(48)
    answers += [httpx2.Response(500)]
    assert await source.access_token(issuer) == "first"
    clock.advance(2)
    for wrong in (
        httpx2.Response(503),
        httpx2.Response(200, json={"access_token": "x"}),
        httpx2.Response(200, json={"access_token": "a b", "token_type": "bearer", "expires_in": 100}),
        httpx2.Response(200, json={"access_token": "x", "token_type": "bearer", "expires_in": -1}),
        httpx2.Response(200, content=b"[" * 60_000, headers={"Content-Type": "application/json"}),
        httpx2.Response(200, content=b"x" * 70_000, headers={"Content-Type": "application/json"}),
        httpx2.Response(302, headers={"Location": "https://evil.test"}),
    ):
        answers += [wrong]
        clock.advance(60)
        with pytest.raises(IssuerUnreachable):
            await source.access_token(issuer)
    answers += [httpx2.Response(401), good("second")]
    clock.advance(60)
    for _ in range(5):
        with pytest.raises(IssuerUnreachable):
            await source.access_token(issuer)
    assert len(answers) == 1, "a refusal is not asked about again at once"
    clock.advance(60)
    assert await source.access_token(issuer) == "second"
    source.drop()
    answers += [good("third")]
    assert await source.access_token(issuer) == "third"
    await issuer.aclose()


def test_client_credentials_come_from_the_environment_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("kanarie\n")
    environment = {"AUTH_ISSUER": "https://auth.test", "AUTH_AUDIENCE": "orders", "AUTH_CLIENT_ID": "a"}
    for given in ({"AUTH_CLIENT_SECRET": "kanarie"}, {"AUTH_CLIENT_SECRET_FILE": str(file)}):
        verifier = Verifier.from_env({**environment, **given})
        assert verifier._credentials == ClientCredentials("a", "kanarie")
        assert "kanarie" not in repr(verifier._credentials)
    (tmp_path / "empty").touch()
    for wrong, named in (
        ({}, "AUTH_CLIENT_SECRET belong"),
        ({"AUTH_CLIENT_ID": "", "AUTH_CLIENT_SECRET": "kanarie"}, "AUTH_CLIENT_ID"),
        ({"AUTH_CLIENT_SECRET": "kanarie", "AUTH_CLIENT_SECRET_FILE": str(file)}, "twice"),
        ({"AUTH_CLIENT_SECRET_FILE": str(tmp_path / "none")}, "AUTH_CLIENT_SECRET_FILE"),
        ({"AUTH_CLIENT_SECRET_FILE": str(tmp_path / "empty")}, "AUTH_CLIENT_SECRET_FILE"),
    ):
        with pytest.raises(ValueError, match=named) as refused:
            Verifier.from_env({**environment, **wrong})
        assert "kanarie" not in str(refused.value)
    with pytest.raises(ValueError, match="belong together"):
        Verifier("https://auth.test", audience="orders", client_id="a")


async def _service_token(issuer: _Issuer, client: Credentials) -> str:
    async with httpx2.AsyncClient() as http:
        form = {"grant_type": "client_credentials"}
        answer = await http.post(f"{issuer.url}/oauth/token", data=form, auth=client.basic)
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["access_token"]
        return token


async def _raises(attempt: Awaitable[object], refusal: type[Exception]) -> bool:
    try:
        await attempt
    except refusal:
        return True
    except Unavailable:
        return False
    return False


async def _of(value: bool) -> bool:
    return value


async def _is(value: Awaitable[int], wanted: int) -> bool:
    return await value == wanted


async def _until(holds: Callable[[], Awaitable[bool]], *, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < deadline, "it has not come true"
        await asyncio.sleep(0.05)
