"""Whose name a request bears: `Host`, an absolute address and forwarding headers change no answer on any route."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

from auth_service.settings import Settings
from tests.fuzz.operations import targets
from tests.support.load import Connection
from tests.support.processes import ServedProcess, served
from tests.support.raw_http import RawAnswer, answered
from tests.support.service import PASSWORD

_VARIES = frozenset({"date", "x-request-id", "age", "content-length"})
# Counters, clocks and what they are written with.
_MOVES = re.compile(rb"[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?")
_HOSTS = ("evil.example", "evil.example:9000", "user.me", "admin", "[::1]:9000", "")
_FORWARDING = "".join(
    f"{header}\r\n"
    for header in (
        *(
            "X-Forwarded-Host: evil.example",
            "X-Forwarded-Proto: http",
            "X-Forwarded-Port: 9000",
            "X-Host: evil.example",
        ),
        *("X-Forwarded-Prefix: /evil", "Forwarded: host=evil.example;proto=http", "X-HTTP-Method-Override: DELETE"),
        *("X-Original-URL: /admin/users", "X-Rewrite-URL: /admin/users"),
    )
)


async def _answer(port: int, method: str, target: str, host: str, more: str) -> RawAnswer:
    head = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n"
    [answer] = await answered(port, head.encode())
    return answer


def _what_counts(answer: RawAnswer) -> tuple[int, dict[str, str], bytes]:
    headers = {name: value for name, value in answer.headers.items() if name not in _VARIES}
    return answer.status, headers, _MOVES.sub(b"0", answer.body)


async def test_no_answer_follows_the_name_that_a_request_bears(
    settings: Callable[..., Settings], tmp_path: Path
) -> None:
    with served(settings(), tmp_path) as [process]:
        for internal, method, path in await asyncio.to_thread(_routes, process):
            port = process.internal_port if internal else process.port
            plain = _what_counts(await _answer(port, method, path, "127.0.0.1", ""))
            poisoned = await asyncio.gather(
                *(_answer(port, method, path, host, _FORWARDING) for host in _HOSTS),
                _answer(port, method, f"http://evil.example{path}", "evil.example", ""),
                _answer(port, method, f"https://evil.example:1{path}", "127.0.0.1", ""),
            )
            for answer in poisoned:
                assert b"evil" not in answer.body, (method, path)
                assert "evil" not in str(answer.headers), (method, path)
                if path != "/metrics":  # it counts these very requests
                    assert _what_counts(answer) == plain, (method, path)


async def test_the_path_that_is_asked_for_decides_and_no_other(
    settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """CVE-2026-48710: a `Host` with a path moved the address that a request seemed to be for."""
    with served(settings(), tmp_path) as [process]:
        connection = await Connection.open(process.port)
        account = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}
        _, body = await connection.post("/user/register", account)
        await connection.close()
        bearer = f"Authorization: Bearer {body['access_token']}\r\n"
        for host in ("x/.well-known/jwks.json?", "x/user/me#", "x?/user/me"):
            assert (await _answer(process.port, "GET", "/user/me", host, bearer)).status == 400
        for target in ("//evil.example/user/me", "/user/me/../sessions", "/./user/me", "/user/me;x"):
            assert (await _answer(process.port, "GET", target, "x", bearer)).status == 404, target
        assert (await _answer(process.port, "GET", "http://evil.example/user/me", "x", bearer)).status == 200
        assert (await _answer(process.port, "GET", "http://evil.example/user/me", "x", "")).status == 401


def _routes(process: ServedProcess) -> list[tuple[bool, str, str]]:
    return [
        (target.internal, target.method, re.sub(r"\{[a-z]+\}", "00000000-0000-0000-0000-000000000000", target.path))
        for target in targets(process)
    ]
