"""What must never come out: no secret and no input in a log line, a metric or a refusal, whatever was sent.

One run drives a real process with a canary in every input, at log level `debug`; the tests look through what it left.
"""

import asyncio
import json
import re
import secrets
import socket
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
import redis
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from auth_service.parts import Parts
from auth_service.settings import Settings
from auth_service.stores.clock import Clock
from tests.support.processes import ServedProcess, served
from tests.support.service import WINDOW, problem
from tests.support.stores import Stores
from tests.support.tokens import base64url, claims_of, generation_of

_FORGED = '{"event": "forged", "level": "critical"}'
_ORIGIN = {"Origin": "https://app.test"}
_COOKIE = "__Host-refresh_token"

# Each tries to end a log line and to begin another, or to paint on a terminal.
_BREAKS = (
    "\r\n",
    "\n",
    "\r",
    "\x1b[31m",
    "\x1b]0;x\x07",
    "\x85",
    "\u2028",
    '", "event": "forged", "x": "',
    "\\n",
    "%0d%0a",
)


@dataclass(slots=True)
class _Run:
    """All that was sent to one process, and all that it said."""

    process: ServedProcess
    client: httpx2.Client
    forbidden: dict[str, str] = field(default_factory=dict)
    """What may appear nowhere: text, and what it is."""
    refusals: dict[str, httpx2.Response] = field(default_factory=dict)
    answered: list[str] = field(default_factory=list)
    """The ids of the requests that were answered."""
    raw_answers: list[bytes] = field(default_factory=list)
    metrics: str = ""
    audit: list[str] = field(default_factory=list)
    """The rows of the audit log, without the user agents, which are what a caller says of itself."""
    log: str = ""

    def canary(self, what: str) -> str:
        text = f"kanarie{secrets.token_hex(8)}"
        self.forbidden[text] = what
        return text

    def secret(self, text: str, what: str) -> str:
        assert len(text) >= 16, what
        self.forbidden[text] = what
        return text

    def token(self, text: str, what: str) -> str:
        """A token of ours: no part of it may appear, and not its id."""
        for part in text.split("."):
            self.secret(part, what)
        self.secret(claims_of(text)["jti"], f"the jti of {what}")
        return text

    def send(self, method: str, path: str, about: str, **request: Any) -> httpx2.Response:
        """Send a request with a canary in every place that is free; remember the answer."""
        request_id = f"request-{secrets.token_hex(8)}"
        headers = {
            "User-Agent": self.canary(f"User-Agent of {about}"),
            "Referer": f"https://app.test/{self.canary(f'Referer of {about}')}",
            "X-Forwarded-For": self.canary(f"X-Forwarded-For of {about}"),
            f"X-{self.canary(f'a header of {about}')}": self.canary(f"the value of a header of {about}"),
            "X-Request-ID": request_id,
        }
        headers |= request.pop("headers", {})
        params = {self.canary(f"a parameter of {about}"): self.canary(f"the value of a parameter of {about}")}
        answer = self.client.request(method, path, headers=headers, params=params, **request)
        self.client.cookies.clear()
        if headers["X-Request-ID"] == request_id:
            assert answer.headers["x-request-id"] == request_id
        self.answered.append(answer.headers["x-request-id"])
        if answer.status_code >= 400:
            assert about not in self.refusals
            self.refusals[about] = answer
        return answer

    def send_raw(self, data: bytes) -> None:
        """Send what no HTTP client would."""
        with socket.create_connection(("127.0.0.1", self.process.port), timeout=10) as connection:
            connection.sendall(data)
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        self.raw_answers.append(answer)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.splitlines()]

    def found_in(self, text: str) -> list[str]:
        """What of the forbidden is in `text`."""
        return [what for needle, what in self.forbidden.items() if needle in text]


@pytest.fixture(scope="module")
def run(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Run]:
    """The run whose traces all tests share: it has ended when they look."""
    folder = tmp_path_factory.mktemp("canaries")
    url = stores.new_database()
    settings = stores.settings(database_url=url, log_level="debug")
    yield _driven(settings, folder)
    stores.drop(url)


@pytest.fixture(scope="module")
def console_run(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Run]:
    """A shorter one, with the log that is made for people."""
    folder = tmp_path_factory.mktemp("canaries-console")
    url = stores.new_database()
    settings = stores.settings(database_url=url, log_level="debug", log_format="console")
    yield _driven(settings, folder, briefly=True)
    stores.drop(url)


def test_the_run_met_every_kind_of_answer(run: _Run) -> None:
    """Or the other tests would have looked at nothing."""
    codes = {problem(answer)[1] for answer in run.refusals.values()}
    assert codes >= {
        *("invalid_request", "invalid_credentials", "invalid_token", "refresh_token_reused", "refresh_token_revoked"),
        *("origin_not_allowed", "cookie_needs_same_site", "not_found", "method_not_allowed", "email_taken"),
        *("username_taken", "payload_too_large", "unsupported_media_type", "weak_password", "unavailable"),
        "internal_error",
    }
    assert len(run.forbidden) > 300


def test_no_log_line_holds_a_secret_or_input(run: _Run) -> None:
    assert run.found_in(run.log) == []
    assert run.found_in(run.log.encode("ascii").decode("unicode_escape")) == []


def test_no_line_of_the_console_log_holds_a_secret_or_input(console_run: _Run) -> None:
    assert "unexpected_error" in console_run.log
    assert console_run.found_in(console_run.log) == []


def test_no_metric_holds_a_secret_or_input(run: _Run) -> None:
    assert run.metrics
    assert run.found_in(run.metrics) == []


def test_no_audit_event_holds_a_secret_or_input(run: _Run) -> None:
    assert {json.loads(row)["action"] for row in run.audit} >= {
        *("user.registered", "user.login", "user.login_failed", "user.renamed", "user.password_changed"),
        *("session.logout", "session.reuse"),
    }
    assert run.found_in("".join(run.audit)) == []


def test_each_audit_event_has_its_line(run: _Run) -> None:
    logged = [(line["action"], line["request_id"]) for line in run.lines if line["event"] == "audit"]
    written = [(row["action"], row["request_id"]) for row in map(json.loads, run.audit)]
    assert sorted(logged) == sorted(written)


def test_no_refusal_holds_a_secret_or_input(run: _Run) -> None:
    for about, answer in run.refusals.items():
        assert run.found_in(answer.text + repr(answer.headers.raw)) == [], about
    for raw in run.raw_answers:
        assert run.found_in(raw.decode("latin-1")) == []


def test_every_line_is_one_json_object_and_none_is_forged(run: _Run) -> None:
    assert run.log.isascii()
    assert not set(run.log) & {chr(code) for code in range(32) if chr(code) != "\n"}
    assert "forged" not in run.log
    for line in run.lines:
        assert {"event", "level", "timestamp"} <= line.keys()
        assert line.keys() <= {
            *("event", "level", "logger", "timestamp", "request_id", "method", "route", "status", "duration_ms"),
            *("problem", "reason", "error", "frames", "sid", "sub", "version", "count", "address", "port", "workers"),
            "kid",
            *("action", "actor", "actor_id", "target", "target_id"),
        }


def test_every_request_has_one_line_with_its_id(run: _Run) -> None:
    requests = [line for line in run.lines if line["event"] == "request"]
    for line in requests:
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", line["request_id"])
        assert re.fullmatch(r"[A-Z]+|\(other\)", line["method"])
        assert re.fullmatch(r"(/[a-z.{}_-]+)+|\(none\)", line["route"])
        assert 200 <= line["status"] <= 599
        assert line["duration_ms"] >= 0
    ids = [line["request_id"] for line in requests]
    assert set(run.answered) <= set(ids)
    assert len(ids) == len(set(ids))


def test_a_refusal_is_logged_with_the_id_of_its_request(run: _Run) -> None:
    logged = {(line["request_id"], line["problem"]) for line in run.lines if line["event"] == "refused"}
    for about, answer in run.refusals.items():
        code = problem(answer)[1]
        if code not in ("internal_error", "method_not_allowed", "not_found"):  # said by the router, if by anyone
            assert (answer.headers["x-request-id"], code) in logged, about


def test_an_unexpected_error_is_answered_500_and_logged_by_its_frames_alone(run: _Run) -> None:
    for about, error, file in (
        ("a row that a constraint refuses", "CheckViolationError", "accounts/users.py"),
        ("a session refused", "CheckViolationError", "sessions/store.py"),
        ("a column that is gone", "KeyError", "accounts/users.py"),
    ):
        answer = run.refusals[about]
        assert problem(answer) == (500, "internal_error")
        [line] = [
            line
            for line in run.lines
            if line["event"] == "unexpected_error" and line["request_id"] == answer.headers["x-request-id"]
        ]
        assert (line["level"], line["error"]) == ("error", error)
        assert any(file in frame for frame in line["frames"])
        assert all(re.fullmatch(r"\S+:\d+ \S+", frame) for frame in line["frames"])
    for message in ("violates check constraint", "Failing row", "canaries_only", "Traceback"):
        assert message not in run.log


def _driven(settings: Settings, folder: Path, *, briefly: bool = False) -> _Run:
    offset_file = folder / "offset"
    offset_file.write_text("0")
    with (
        served(settings, folder, offset_file=offset_file) as [process],
        httpx2.Client(base_url=process.url, timeout=10) as client,
    ):
        run = _Run(process, client)
        _forbid_private_keys(run, settings)
        _sign_in_and_out(run, offset_file)
        if not briefly:
            _use_cookies(run)
            _change_the_account(run)
            _send_malformed_bodies(run)
            _send_bad_credentials(run)
            _break_lines(run)
        _break_stores(run, settings)
        run.metrics = "".join(
            httpx2.get(f"{process.internal_url}/metrics", headers={"Accept": accept}).text
            for accept in ("text/plain", "application/openmetrics-text")
        )
    run.audit = asyncio.run(_audit_rows(settings))
    run.log = process.log.read_text("utf-8")
    return run


async def _audit_rows(settings: Settings) -> list[str]:
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        rows = await connection.fetch("SELECT to_jsonb(e) - 'user_agent' AS row FROM audit_events e ORDER BY id")
        return [row["row"] for row in rows]
    finally:
        await connection.close()


def _forbid_private_keys(run: _Run, settings: Settings) -> None:
    """Every spelling in which a private half could show, and what unlocks it."""

    async def load() -> Any:
        parts = Parts(settings, Clock())
        await parts.open()
        try:
            rows = await parts.database.rows("SELECT private_key FROM signing_keys")
            return [key.private_key for key in (await parts.key_store.load()).keys], [
                row["private_key"] for row in rows
            ]
        finally:
            await parts.close()

    keys, encrypted = asyncio.run(load())
    assert keys
    for key in keys:
        numbers = key.private_numbers()
        members = {name: getattr(numbers, name) for name in ("d", "p", "q", "dmp1", "dmq1", "iqmp")}
        for name, number in members.items():
            data = number.to_bytes((number.bit_length() + 7) // 8, "big")
            for text in (base64url(data), b64encode(data).decode().rstrip("="), data.hex(), str(number), repr(data)):
                run.secret(text, f"the private member {name}")
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
            pem = key.private_bytes(Encoding.PEM, form, NoEncryption()).decode().splitlines()
            for line in pem[1:-1]:
                if len(line) >= 16:
                    run.secret(line, "a line of the private PEM")
            der = key.private_bytes(Encoding.DER, form, NoEncryption())
            run.secret(urlsafe_b64encode(der).decode().rstrip("="), "the private DER")
    for row in encrypted:
        run.secret(row.decode(), "the encrypted private key")
    run.secret("PRIVATE KEY-----", "the head of a PEM")
    run.secret("$argon2id$v=19$m=", "a password hash")
    for encryption_key in settings.key_encryption_keys:
        run.secret(encryption_key.get_secret_value(), "the encryption key")
    run.secret(settings.database_url.get_secret_value(), "the URL of the database")
    run.secret(settings.redis_url.get_secret_value(), "the URL of Redis")


def _account(run: _Run, about: str) -> dict[str, str]:
    return {
        "username": run.canary(f"user name of {about}"),
        "email": f"{run.canary(f'local part of {about}')}@{run.canary(f'domain of {about}')}.example",
        "password": f"{run.canary(f'password of {about}')} and more",
    }


def _tokens(run: _Run, answer: httpx2.Response, about: str) -> tuple[str, str]:
    """The access and the refresh token of an answer; both are forbidden from now on."""
    assert answer.status_code in (200, 201), answer.text
    refresh_token = answer.json().get("refresh_token") or answer.cookies[_COOKIE]
    return (
        run.token(answer.json()["access_token"], f"the access token of {about}"),
        run.token(refresh_token, f"the refresh token of {about}"),
    )


def _register(run: _Run, about: str, **members: str) -> tuple[dict[str, str], str, str]:
    account = _account(run, about)
    scope = f"profile {run.canary(f'scope of {about}')}"
    answer = run.send("POST", "/user/register", about, json={**account, "scope": scope, **members})
    return account, *_tokens(run, answer, about)


def _bearer(access_token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {access_token}"}


def _sign_in_and_out(run: _Run, offset_file: Path) -> None:
    account, access_token, refresh_token = _register(run, "the first user")
    assert run.send("GET", "/user/me", "me", headers=_bearer(access_token)).status_code == 200
    assert run.send("GET", "/user/sessions", "sessions", headers=_bearer(access_token)).status_code == 200
    wrong = {"password": run.canary("a wrong password")}
    run.send("POST", "/user/login", "a wrong password", json={"email": account["email"], **wrong})
    run.send("POST", "/user/login", "an unknown user", json={"username": run.canary("an unknown name"), **wrong})
    login = {"email": account["email"], "password": account["password"]}
    _, second = _tokens(run, run.send("POST", "/user/login", "a login", json=login), "a login")
    _, rotated = _tokens(
        run, run.send("POST", "/user/refresh-token", "a refresh", json={"refresh_token": refresh_token}), "a refresh"
    )
    assert generation_of(rotated) == 2
    offset_file.write_text(str(WINDOW + 1))
    run.send("POST", "/user/refresh-token", "reuse", json={"refresh_token": refresh_token})
    run.send("POST", "/user/refresh-token", "the ended session", json={"refresh_token": rotated})
    assert run.send("POST", "/user/logout", "logout", json={"refresh_token": second}).status_code == 204
    run.send("POST", "/user/refresh-token", "after the logout", json={"refresh_token": second})


def _use_cookies(run: _Run) -> None:
    _, access_token, refresh_token = _register_with_cookie(run)
    cookie = {"Cookie": f"other={run.canary('another cookie')}; {_COOKIE}={refresh_token}"}
    refreshed = run.send("POST", "/user/refresh-token", "a refresh by cookie", headers={**cookie, **_ORIGIN})
    _tokens(run, refreshed, "a refresh by cookie")
    run.send("POST", "/user/refresh-token", "a cookie without origin", headers=cookie)
    origin = {"Origin": f"https://{run.canary('an origin')}.test"}
    run.send("POST", "/user/refresh-token", "a cookie from elsewhere", headers={**cookie, **origin})
    cross_site = {**cookie, **_ORIGIN, "Sec-Fetch-Site": "cross-site"}
    run.send("POST", "/user/refresh-token", "a cookie across sites", headers=cross_site)
    run.send("POST", "/user/logout", "a logout from elsewhere", headers={**cookie, **origin})
    bad = {"Cookie": f"{_COOKIE}={run.canary('a bad cookie')}; \x22={run.canary('half a cookie')}", **_ORIGIN}
    run.send("POST", "/user/refresh-token", "a bad cookie", headers=bad)
    preflight = {**origin, "Access-Control-Request-Method": run.canary("a method asked for")}
    run.client.options("/user/login", headers=preflight)
    everything = {**cookie, **_ORIGIN, **_bearer(access_token)}
    assert run.send("POST", "/user/logout", "a logout by cookie", headers=everything).status_code == 204
    run.send("GET", "/user/me", "after the logout by cookie", headers=_bearer(access_token))


def _register_with_cookie(run: _Run) -> tuple[dict[str, str], str, str]:
    account = _account(run, "a user with a cookie")
    answer = run.send(
        "POST", "/user/register", "a registration by cookie", json={**account, "transport": "cookie"}, headers=_ORIGIN
    )
    return account, *_tokens(run, answer, "a registration by cookie")


def _change_the_account(run: _Run) -> None:
    taken, _, _ = _register(run, "a user whose names are wanted")
    account, access_token, _ = _register(run, "a user who changes")
    bearer = _bearer(access_token)
    current = {"current_password": account["password"]}
    wrong = {"current_password": run.canary("a wrong current password")}
    new = {"new_password": f"{run.canary('a new password')} and more"}
    for about, path, method, body in (
        ("a taken e-mail", "/user/me", "PATCH", {"email": taken["email"], **current}),
        ("a taken name", "/user/me", "PATCH", {"username": taken["username"]}),
        ("a change with a wrong password", "/user/me", "PATCH", {"email": "new@example.com", **wrong}),
        ("a new password with a wrong one", "/user/password", "POST", {**new, **wrong}),
        ("a weak password", "/user/password", "POST", {"new_password": account["username"][:8], **current}),
        ("the name as password", "/user/password", "POST", {"new_password": account["username"], **current}),
        ("a registration taken", "/user/register", "POST", taken),
    ):
        assert run.send(method, path, about, json=body, headers=bearer).status_code >= 400
    name = {"username": run.canary("a new name")}
    assert run.send("PATCH", "/user/me", "a new name", json=name, headers=bearer).status_code == 200
    assert run.send("POST", "/user/password", "a new password", json={**new, **current}, headers=bearer).is_success
    session = run.canary("a session id")
    run.send("DELETE", f"/user/sessions/{session}", "a session that is none", headers=bearer)


def _send_malformed_bodies(run: _Run) -> None:
    for path in ("/user/register", "/user/login", "/user/refresh-token", "/user/logout"):
        json_type = {"Content-Type": "application/json"}
        for about, content in {
            "text": run.canary("a body of text").encode(),
            "an unknown member": json.dumps({run.canary("a member"): run.canary("its value")}).encode(),
            "wrong types": json.dumps({"username": [run.canary("a list")], "refresh_token": {"x": 1}}).encode(),
            "a bad character": run.canary("bad UTF-8").encode() + b"\xff",
            "a lone surrogate": b'{"refresh_token": "%b\\ud800"}' % run.canary("a surrogate").encode(),
            "too much": run.canary("a large body").encode() * 2_000,
            "a member twice": b'{"a": 1, "a": "%b"}' % run.canary("a member twice").encode(),
            "too deep": b'{"%b": ' % run.canary("deep").encode() + b"[" * 5_000,
        }.items():
            run.send("POST", path, f"{about} to {path}", content=content, headers=json_type)
        chunks = iter([run.canary("a chunk").encode() * 50] * 40)  # sent without a length
        run.send("POST", path, f"too many chunks to {path}", content=chunks, headers=json_type)
        form = {run.canary("a form field"): run.canary("a form value")}
        run.send("POST", path, f"a form to {path}", data=form)
        wrong_type = {"Content-Type": f"text/{run.canary('a content type')}"}
        run.send("POST", path, f"another type to {path}", content=b"{}", headers=wrong_type)


def _send_bad_credentials(run: _Run) -> None:
    _, access_token, refresh_token = _register(run, "a user with bad credentials")
    head, body, _ = access_token.split(".")
    for about, value in {
        "a canary": f"Bearer {run.canary('a bearer')}",
        "Basic": f"Basic {run.canary('basic credentials')}",
        "a scheme": run.canary("a scheme"),
        "a bad signature": f"Bearer {head}.{body}.{base64url(run.canary('a signature').encode())}",
        "a refresh token": f"Bearer {refresh_token}",
        "a header of its own": f"Bearer {base64url(json.dumps({'kid': run.canary('a kid')}).encode())}.{body}.AA",
    }.items():
        run.send("GET", "/user/me", f"{about} as bearer", headers={"Authorization": value})
        run.send("POST", "/user/refresh-token", f"{about} as refresh token", json={"refresh_token": value[7:] or "x"})
    run.send("POST", "/user/refresh-token", "an access token", json={"refresh_token": access_token})
    twice = [("Authorization", f"Bearer {run.canary('the first of two')}"), ("Authorization", "Bearer x")]
    assert run.client.get("/user/me", headers=twice).status_code == 400
    run.send("GET", f"/{run.canary('a path')}/{run.canary('a path below')}", "no such path")
    run.send("PUT", "/user/me", "no such method")
    run.forbidden["PROPFIND"] = "a method that is not one of ours"
    run.send("PROPFIND", "/user/me", "a method of WebDAV")


def _break_lines(run: _Run) -> None:
    """Values that would begin a log line of their own if anything wrote them as they are."""
    for number, line_break in enumerate(_BREAKS):
        forged = f"{run.canary('a forged line')}{line_break}{_FORGED}{line_break}"
        body = {"username": forged, "email": f"{forged}@example.com", "password": forged}
        run.send("POST", "/user/register", f"break {number} in names", json=body)
        run.send("POST", "/user/login", f"break {number} in a login", json={"username": forged, "password": forged})
        run.send("POST", "/user/refresh-token", f"break {number} in a token", json={"refresh_token": forged})
        quoted = "".join(f"%{byte:02X}" for byte in forged.encode())
        run.send("GET", f"/{quoted}", f"break {number} in a path")
        value = forged.encode()
        for name in (
            b"X-Request-ID",
            b"User-Agent",
            b"Authorization",
            b"Cookie",
            b"Origin",
            b"X-Forwarded-For",
            b"Host",
        ):
            host = b"" if name == b"Host" else b"Host: a\r\n"
            run.send_raw(
                b"GET /user/me?%b HTTP/1.1\r\n%bConnection: close\r\n%b: %b\r\n\r\n"
                % (quoted.encode(), host, name, value)
            )
        run.send_raw(b"%b /user/me HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % value)
        run.send_raw(b"GET /%b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % value)
        run.send_raw(b"GET / %b\r\nHost: a\r\nConnection: close\r\n\r\n" % value)
    for bad_id in (f"{run.canary('a request id')} {_FORGED}", run.canary("a long request id") * 4, ""):
        answer = run.send("GET", "/user/me", f"request id {bad_id[-9:]!r}", headers={"X-Request-ID": bad_id})
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


def _break_stores(run: _Run, settings: Settings) -> None:
    """Make PostgreSQL and Redis fail in ways whose messages quote what was sent."""
    account, access_token, refresh_token = _register(run, "a user whose stores break")

    async def execute(statement: str) -> None:
        connection = await asyncpg.connect(settings.database_url.get_secret_value())
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    sid = claims_of(refresh_token)["sid"]
    with redis.Redis.from_url(settings.redis_url.get_secret_value()) as client:
        client.rpush(f"auth:session:{sid}", run.canary("a value in Redis"))
    body = {"refresh_token": refresh_token}
    _tokens(
        run, run.send("POST", "/user/refresh-token", "a key of the wrong kind", json=body), "a key of the wrong kind"
    )
    # Its refusal quotes the whole row, password hash included.
    asyncio.run(execute("ALTER TABLE users ADD CONSTRAINT canaries_only CHECK (username !~ '^trap') NOT VALID"))
    trapped = {**_account(run, "a trapped user"), "username": f"trap{run.canary('a trapped name')}"}
    run.send("POST", "/user/register", "a row that a constraint refuses", json=trapped)
    asyncio.run(
        execute("ALTER TABLE sessions ADD CONSTRAINT canaries_only_too CHECK (user_agent !~ '^trap') NOT VALID")
    )
    agent = {"User-Agent": f"trap{run.canary('a trapped User-Agent')}"}
    login = {"email": account["email"], "password": account["password"]}
    run.send("POST", "/user/login", "a session refused", json=login, headers=agent)
    assert run.send("GET", "/user/me", "me after the errors", headers=_bearer(access_token)).status_code == 200
    asyncio.run(execute("ALTER TABLE users RENAME COLUMN password_hash TO gone"))
    run.send("POST", "/user/login", "a column that is gone", json=login)
    asyncio.run(execute("ALTER TABLE users RENAME TO gone"))
    run.send("POST", "/user/login", "a table that is gone", json=login)
