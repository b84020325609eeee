"""A canary in every input of every operation of both ports: none comes out in a log, metric, audit event or refusal.

The inputs are read from the OpenAPI documents, the header fields from the source: a new one is swept by itself. What no
HTTP client would send is sent too, and all of it again while a store is away. `TEST_CAMPAIGN=1` goes on for 50,000
lines of the log at each level. Chosen attacks on the log are in `test_log_canaries.py`.
"""

import asyncio
import json
import os
import random
import re
import signal
import socket
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest

from auth_service.settings import Settings
from tests.support import described
from tests.support.canaries import Canaries
from tests.support.command import command
from tests.support.described import Described
from tests.support.oauth import Credentials, added_client
from tests.support.processes import ServedProcess, served
from tests.support.service import PASSWORD
from tests.support.stores import Stores, stopped
from tests.support.tokens import base64url

_LINES = 50_000 if os.environ.get("TEST_CAMPAIGN") else 2_500
_THREADS = 4
_SOURCE = Path(__file__).parent.parent / "auth_service"

# What the service reads of a request's header, or a proxy or a library may.
_FIELDS = (
    *("Authorization", "Cookie", "Origin", "Sec-Fetch-Site", "Content-Type", "Accept", "If-None-Match"),
    *("X-Request-ID", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "User-Agent"),
    *("Referer", "Access-Control-Request-Method", "Access-Control-Request-Headers", "Accept-Language", "Range"),
)
_SET_BY_CLIENT = {"content-length", "host"}  # sent wrong by `_bytes`

# Where an answer that is no refusal may repeat what was sent, by member: one's own names, and what one has stored.
_OWN = {"username", "email"}
_TOKENS = {"access_token"}  # names its user, in base64
_MAY_COME_BACK: dict[tuple[str, str], set[str]] = {
    ("POST", "/user/register"): _OWN | _TOKENS,
    ("POST", "/user/login"): _OWN | _TOKENS,
    ("POST", "/user/refresh-token"): _OWN | _TOKENS,
    ("GET", "/user/me"): _OWN,
    ("PATCH", "/user/me"): _OWN,
    ("GET", "/user/sessions"): {"user_agent"},
    # A cursor names where to go on: the names stand in it.
    ("GET", "/admin/users"): _OWN | {"granted_scopes", "next"},
    ("POST", "/admin/users"): _OWN | {"granted_scopes"},
    ("GET", "/admin/users/{id}"): _OWN | {"granted_scopes"},
    ("PATCH", "/admin/users/{id}"): _OWN | {"granted_scopes"},
    ("GET", "/admin/users/{id}/sessions"): {"user_agent"},
    ("GET", "/admin/clients"): {"client_name", "scope", "audiences", "next"},
    ("POST", "/admin/clients"): {"client_name", "scope", "audiences"},
    # What the user's or the client's rights became.
    ("GET", "/admin/audit-events"): {"user_agent", "granted", "added", "removed", "scope", "audiences"},
}
_MAY_BE_AUDITED = _MAY_COME_BACK["GET", "/admin/audit-events"]

# These end the session that asks, and a session that has ended would get the sweep no further than a 401.
_ENDING = {("POST", "/user/logout"), ("DELETE", "/user/sessions")}


@dataclass(slots=True)
class _Sweep:
    """One process, what may be presented to it, and all that it said."""

    process: ServedProcess
    canaries: Canaries
    credentials: dict[str, str]
    """By security scheme: the `Authorization` that is good."""
    victim: str
    """The id of a user who may be changed."""
    operations: list[tuple[str, Described]] = field(default_factory=list)
    """Each with the address of its port."""
    answered: set[tuple[str, str, int]] = field(default_factory=set)
    leaks: list[str] = field(default_factory=list)
    unanswered: int = 0
    metrics: str = ""
    audit: list[dict[str, Any]] = field(default_factory=list)
    spoken: str = ""
    """What the operating system shows of the process: its command line, its environment, its threads' names."""

    def send(self, client: httpx2.Client, chance: random.Random, operation: Described, place: str) -> None:
        """One request with a canary in one place at least."""
        canary = self.canaries.new
        headers = {"User-Agent": canary()} if chance.random() < 0.5 else {}
        good = self.credentials.get("spare" if operation.name in _ENDING else operation.security or "")
        if good is not None and chance.random() < 0.7:
            headers["Authorization"] = good
        path = dict(operation.path_values)
        if operation.name != ("DELETE", "/admin/users/{id}") and chance.random() < 0.5:
            path = dict.fromkeys(path, self.victim)
        query = dict(operation.query_values) if chance.random() < 0.3 else {}
        left_out = chance.choice([0, 0.3, 0.7])
        body = {name: value for name, value in operation.body_values.items() if chance.random() >= left_out}
        for name in (_OWN | {"client_name"}) & body.keys():  # else they would soon be taken
            body[name] = f"{canary()}@{canary()}.example" if name == "email" else canary()
        kind, _, name = place.partition(" ")
        content: str | bytes | None = None
        match kind:
            case "header":
                headers[name] = self._field(name, chance)
            case "path" if name:
                path[name] = canary()
            case "path":
                path = dict.fromkeys(path, f"{canary()}/{canary()}")
            case "query":
                query[name or canary()] = canary()
            case "member":
                body[name] = chance.choice(_SHAPES)(canary())
            case "body" if name == "unknown":
                body[canary()] = chance.choice(_SHAPES)(canary())
            case "body":
                text = canary()
                content = chance.choice([text, f'{{"{text}": ', f'["{text}"]', text * 900, f'{{"a":1,"{text}":"\\x"}}'])
        if operation.body_type and "Content-Type" not in headers:
            headers["Content-Type"] = operation.body_type
        if content is None and operation.body_type == "application/json":
            content = json.dumps(body)
        elif content is None and operation.body_type:
            content = str(httpx2.QueryParams({key: str(value) for key, value in body.items()}))
        try:
            answer = client.request(
                operation.method,
                operation.path.format_map(path),
                headers=headers,
                params=query,
                content=content,
            )
        except httpx2.TransportError:
            self.unanswered += 1
            return
        client.cookies.clear()
        self._look_at(operation, place, answer)

    def _field(self, name: str, chance: random.Random) -> str:
        canary = self.canaries.new()
        part = base64url(json.dumps({"alg": "RS256", "typ": "at+jwt", "kid": canary, "sub": canary}).encode())
        shapes = {
            "Authorization": [
                canary,
                f"Bearer {canary}",
                f"Bearer {part}.{part}.{base64url(canary.encode())}",
                f"Basic {b64encode(f'{canary}:{canary}'.encode()).decode()}",
                f"Basic {b64encode(canary.encode()).decode()}",
                f"Digest username={canary}",
            ],
            "Cookie": [f"__Host-refresh_token={canary}", f"{canary}={canary}", f"__Host-refresh_token={part}.{part}.x"],
            "Origin": [f"https://{canary}.test", canary],
            "X-Forwarded-For": [canary, f"192.0.2.1, {canary}", f"{canary}, 192.0.2.1"],
            "X-Request-ID": [f"{canary} {canary}", f"{canary}" * 4],  # a good one is the caller's to choose
        }
        return chance.choice(shapes.get(name, [canary, f"{canary}/{canary};q={canary}"]))

    def _look_at(self, operation: Described, place: str, answer: httpx2.Response) -> None:
        self.answered.add((*operation.name, answer.status_code))
        about = f"{operation.name} {place} {answer.status_code}"
        for name, value in answer.headers.items():
            if self.canaries.is_in(value):
                self.leaks.append(f"{about}: the header {name}")
        may = _MAY_COME_BACK.get(operation.name, set()) if answer.is_success else set()
        if "json" in answer.headers.get("content-type", ""):
            found = {*self.canaries.members_with(answer.json())} - may
        else:
            found = {"the body"} if self.canaries.is_in(answer.text) else set()
        self.leaks += [f"{about}: {member}" for member in found]

    def send_bytes(self, chance: random.Random) -> None:
        """What is hardly HTTP, if at all, to one of the ports."""
        text = self.canaries.new().encode()
        port = chance.choice([self.process.port, self.process.internal_port])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(chance.choice(_BYTES) % dict.fromkeys([b"c"], text))
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while chunk := connection.recv(65536):
                    answer += chunk
            except ConnectionResetError:
                pass
        if self.canaries.is_in(answer.decode("latin-1")):
            self.leaks.append(f"bytes to {port}: {answer[:60]!r}")

    @property
    def log(self) -> str:
        return self.process.log.read_text("utf-8")


_SHAPES: tuple[Callable[[str], Any], ...] = (
    lambda text: text,
    lambda text: f"{text}@{text}.example",
    lambda text: f"{text} and more words",
    lambda text: [text],
    lambda text: {text: text},
    lambda text: f"{text}\r\n\x1b[31m\u2028",
    lambda text: text * 20,
    lambda text: f"{base64url(text.encode())}.{base64url(text.encode())}.{text}",
)

_BYTES = (
    b"%(c)b\r\n\r\n",
    b"%(c)b /user/me HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /%(c)b\x00%(c)b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/%(c)b\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\n%(c)b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: %(c)b\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n%(c)b: %(c)b\x00\r\n\r\n",
    b"GET http://%(c)b/user/me HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"POST /user/login HTTP/1.1\r\nHost: a\r\nContent-Length: %(c)b\r\n\r\n",
    b"POST /user/login HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n%(c)b",
    b"POST /user/login HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%(c)b\r\n",
    b"POST /oauth/token HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: %(c)b\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n%(c)b",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03%(c)b",
    b"GET /revocations HTTP/1.1\r\nHost: a\r\nUpgrade: %(c)b\r\nConnection: Upgrade\r\nExpect: %(c)b\r\n\r\n",
)


def _places(operation: Described) -> Iterator[str]:
    """Every input of an operation, known or not."""
    yield from (f"header {name}" for name in _FIELDS)
    yield from (f"path {name}" for name in (*operation.path_values, *([""] if operation.path_values else [])))
    yield from (f"query {name}" for name in (*operation.query_values, ""))
    yield from (f"member {name}" for name in operation.body_values)
    if operation.body_type:
        yield from ("body unknown", "body broken")


def _sweep(sweep: _Sweep, *, lines: int, seed: int, systematic: bool) -> None:
    """Requests until the log has `lines` lines more: first one for each input, then by chance."""
    everything = [(url, operation, place) for url, operation in sweep.operations for place in _places(operation)]
    first = iter(everything if systematic else ())
    enough = sweep.log.count("\n") + lines

    def work(thread: int) -> None:
        chance = random.Random(f"{seed}.{thread}")  # noqa: S311 — the same in every run
        clients = {url: httpx2.Client(base_url=url, timeout=20) for url in {url for url, _ in sweep.operations}}
        for turn in range(lines):  # each request has a line at least
            chosen = next(first, None)
            if chosen is None and turn % 50 == 0 and sweep.log.count("\n") >= enough:
                break
            url, operation, place = chosen or chance.choice(everything)
            sweep.send(clients[url], chance, operation, place)
            if chance.random() < 0.05:
                sweep.send_bytes(chance)
        for client in clients.values():
            client.close()

    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(work, range(_THREADS)))


@pytest.fixture(scope="module", params=["debug", "info"])
def sweep(
    request: pytest.FixtureRequest, fragile: Stores, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[_Sweep]:
    """A sweep that has ended: on good stores, then without Redis, then without PostgreSQL."""
    url = fragile.new_database()
    settings = fragile.settings(
        database_url=url, log_level=request.param, revocation_feed="client", trusted_proxies="127.0.0.0/8"
    )
    canaries = Canaries()
    with served(settings, tmp_path_factory.mktemp("sweep")) as [process]:
        sweep = _Sweep(process, canaries, *_credentials(settings, process))
        for base in (process.url, process.internal_url):
            document = httpx2.get(f"{base}/openapi.json").json()
            sweep.operations += [(base, operation) for operation in described.operations(document)]
        _sweep(sweep, lines=_LINES * 6 // 10, seed=1, systematic=True)
        asyncio.run(_without_each_store(sweep, fragile))
        for accept in ("text/plain", "application/openmetrics-text"):
            sweep.metrics += httpx2.get(f"{process.internal_url}/metrics", headers={"Accept": accept}).text
        proc = Path(f"/proc/{process.popen.pid}")
        if proc.exists():
            shown = [proc / "cmdline", proc / "environ", *proc.glob("task/*/comm")]
            sweep.spoken = "".join(file.read_bytes().decode("latin-1") for file in shown)
        sweep.audit = asyncio.run(_audit_rows(settings))
    yield sweep
    fragile.drop(url)


async def _without_each_store(sweep: _Sweep, fragile: Stores) -> None:
    async with stopped(fragile.redis, signal.SIGKILL):
        await asyncio.to_thread(_sweep, sweep, lines=_LINES * 2 // 10, seed=2, systematic=False)
    async with stopped(fragile.postgresql, signal.SIGQUIT):
        await asyncio.to_thread(_sweep, sweep, lines=_LINES * 2 // 10, seed=3, systematic=False)


def _credentials(settings: Settings, process: ServedProcess) -> tuple[dict[str, str], str]:
    """What is good for each security scheme, and the id of a user who is not needed."""
    ids = {}
    for name in ("ada", "grace", "spare", "victim"):
        account = {"username": name, "email": f"{name}@byron.example", "password": PASSWORD}
        answer = httpx2.post(f"{process.url}/user/register", json=account).json()
        ids[name] = answer["user"]["id"], answer["access_token"]
    assert command("users", "grant", "grace", "auth:admin", settings=settings).code == 0
    login = {"username": "grace", "password": PASSWORD, "scope": "auth:admin"}
    admin = httpx2.post(f"{process.url}/user/login", json=login).json()["access_token"]
    scopes = ("--scope", "revocations:read", "--scope", "auth:introspect", "--scope", "orders:read")
    client: Credentials = added_client(settings, "sweeper", *scopes)
    form = {"grant_type": "client_credentials", "scope": "revocations:read"}
    service = httpx2.post(f"{process.url}/oauth/token", data=form, auth=client.basic).json()["access_token"]
    basic = b64encode(":".join(client.basic).encode()).decode()
    bearers = {"bearer": ids["ada"][1], "spare": ids["spare"][1], "admin_bearer": admin, "client_bearer": service}
    good = {scheme: f"Bearer {access_token}" for scheme, access_token in bearers.items()}
    return {**good, "client": f"Basic {basic}"}, ids["victim"][0]


async def _audit_rows(settings: Settings) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        return [json.loads(row[0]) for row in await connection.fetch("SELECT to_jsonb(e) FROM audit_events e")]
    finally:
        await connection.close()


def test_every_operation_was_met_and_the_log_is_long_enough(sweep: _Sweep) -> None:
    """Or the other tests would have looked at nothing."""
    assert {operation.name for _, operation in sweep.operations} == {name[:2] for name in sweep.answered}
    taken = {name[:2] for name in sweep.answered if name[2] < 400}
    assert len(taken) > 25
    assert {200, 201, 204, 400, 401, 403, 404, 413, 415, 503} <= {status for *_, status in sweep.answered}
    assert sweep.log.count("\n") >= _LINES
    assert len(sweep.audit) > 20
    assert sweep.unanswered < 20


def test_no_answer_repeats_what_was_sent_but_where_it_may(sweep: _Sweep) -> None:
    assert sweep.leaks == []


def test_nothing_that_was_sent_brings_the_service_to_its_knees(sweep: _Sweep) -> None:
    assert {status for *_, status in sweep.answered if status >= 500} == {503}
    assert "unexpected_error" not in sweep.log


def test_no_line_of_the_log_holds_what_was_sent_or_a_secret(sweep: _Sweep) -> None:
    lines = sweep.log.splitlines()
    assert [line for line in lines if sweep.canaries.is_in(line)] == []
    kept = re.compile(r"eyJ[\w-]{10}|\$argon2|PRIVATE KEY|" + re.escape(PASSWORD))
    assert [line for line in lines if kept.search(line)] == []


def test_no_metric_audit_event_or_process_title_holds_what_was_sent(sweep: _Sweep) -> None:
    assert "auth_" in sweep.metrics
    assert not sweep.canaries.is_in(sweep.metrics)
    assert {*sweep.canaries.members_with(sweep.audit)} <= _MAY_BE_AUDITED
    assert not sweep.canaries.is_in(sweep.spoken)


def test_every_header_field_that_the_service_reads_is_swept() -> None:
    """Read from the source: whoever reads another one adds it to `_FIELDS`."""
    sources = [file.read_text("utf-8") for file in _SOURCE.rglob("*.py") if file.parts[-2] not in ("cli", "verifier")]
    read = {
        name
        for text in sources
        for name in re.findall(r"[Hh]eaders(?:\([^)]*\))?\.get(?:list)?\(\s*\"([a-z-]+)\"", text)
    }
    read |= {
        name
        for text in sources
        for name in re.findall(r"\bb\"((?:x|sec|content|if|user|accept)[a-z-]*-[a-z-]+)\"", text)
    }
    assert {"authorization", "user-agent", "x-forwarded-for", "content-length"} <= read
    assert read <= {name.lower() for name in _FIELDS} | _SET_BY_CLIENT


def test_a_canary_is_found_however_it_is_written() -> None:
    canaries = Canaries()
    text = canaries.new()
    for before in ("", "a", "ab", "abc"):
        assert canaries.is_in(b64encode(f"{before}{text}".encode()).decode())
        assert canaries.is_in(base64url(f"{before}{text}".encode()))
    for written in (text, text.upper(), text.encode().hex(), json.dumps({"x": [text]})):
        assert canaries.is_in(written)
    assert not canaries.is_in(b64encode(os.urandom(3000)).decode())
    assert list(canaries.members_with({"a": [{"b": text}], text: 1})) == ["b", "a member's name"]
