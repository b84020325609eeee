"""One attack: the bytes of one request, made from a seed and a number alone, so that it can be sent again."""

import json
from base64 import b64encode
from dataclasses import dataclass
from random import Random

from tests.fuzz import mutation
from tests.fuzz.operations import Target

_METHODS = (
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "PURGE", "QUERY", "BREW", "get",
)  # fmt: skip
_MEDIA_TYPES = (
    "application/json", "application/json; charset=utf-8", "application/json; charset=utf-16", "text/plain", "",
    "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
    "multipart/form-data; boundary=" + "x" * 5000,
    "application/json, text/plain", "*/*", "application/xml", "APPLICATION/JSON", "application/json;;;", "\xff",
)  # fmt: skip
_HOSTS = ("evil.example", "", "a@b", "x/../y", "[::1", "\xff", "a" * 5000, "x\r\nHost: y")
_ACCEPTS = ("*/*", "text/event-stream", "text/event-stream;q=0", "application/openmetrics-text", ",,,;q=x", "\xff")
_ORIGINS = ("https://app.test", "null", "https://evil.example", "", "https://app.test, https://app.test", "x" * 3000)
_RARELY = 0.003


@dataclass(frozen=True, slots=True)
class Credentials:
    """What opens doors at this moment. They are the only part of an attack that the seed does not decide."""

    access_token: str
    admin_token: str
    refresh_token: str
    client: str
    """Id and secret, with a colon between."""


@dataclass(frozen=True, slots=True)
class Attack:
    """`framed`: there will be exactly one answer. Else the bytes may be anything from no request to several."""

    data: bytes
    internal: bool
    framed: bool
    head: bool = False
    """Whether its answer has no body."""


class Attacker:
    """Makes attacks on `targets`: the same for the same seed, number and credentials."""

    def __init__(self, targets: list[Target], *, seed: int) -> None:
        self._targets = targets
        self._costly = [target for target in targets if target.hashes]
        self._cheap = [target for target in targets if not target.hashes]
        self._seed = seed

    def attack(self, number: int, credentials: Credentials) -> Attack:
        rng = Random(self._seed << 40 | number)  # noqa: S311 — it has to be the same again
        if rng.random() < 0.08:
            return self._raw(rng, credentials)
        target = rng.choice(self._targets)
        return self._framed(rng, target, credentials)

    def _framed(self, rng: Random, target: Target, credentials: Credentials) -> Attack:
        # What takes no input but its address is spoilt there, or it would not be malformed.
        plain = target.example is None and not target.query and "{" not in target.path
        method = target.method if rng.random() < (0.7 if plain else 0.92) else rng.choice(_METHODS)
        body = _body(rng, target, credentials)
        headers = _headers(rng, target, credentials)
        if body or rng.random() < 0.1:
            headers.append(("Content-Length", str(len(body))))
        written = "".join(f"{name}: {value}\r\n" for name, value in headers)
        head = (
            f"{method} {_address(rng, target, spoilt=plain and rng.random() < 0.9)} HTTP/1.1\r\n{written}\r\n".encode(
                "latin-1", "replace"
            )
        )
        return Attack(head + body, target.internal, framed=True, head=method == "HEAD")

    def _raw(self, rng: Random, credentials: Credentials) -> Attack:
        target = rng.choice(self._costly if rng.random() < _RARELY else self._cheap)
        data = self._framed(rng, target, credentials).data
        match rng.randrange(5):
            case 0:
                data = rng.randbytes(rng.choice((1, 20, 500, 20_000)))
            case 1:
                data *= rng.choice((2, 5, 50))
            case 2:
                framing = b"".join(rng.sample(_FRAMING, rng.randint(1, 3)))
                data = data.replace(b"\r\n", b"\r\n" + framing, 1) + rng.choice(_CHUNKS)
            case _:
                data = mutation.broken_bytes(rng, data)
        return Attack(data, target.internal, framed=False)


_FRAMING = (
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding : chunked\r\n",
    b"Content-Length: 5\r\n", b"Content-Length: -5\r\n", b"Content-Length: 99999999999\r\n", b"Content-Length: 0\r\n",
    b"Connection: close\r\n", b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"Expect: 100-continue\r\n",
    b" folded\r\n",
)  # fmt: skip
_CHUNKS = (
    b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n", b"fffffffffffffffff\r\n",
    b"-1\r\n", b"5\nhello\n0\n\n", b"7fffffff\r\nhello", b"0" * 9000, b"1;" + b"x" * 9000 + b"\r\n",
)  # fmt: skip


def _address(rng: Random, target: Target, *, spoilt: bool) -> str:
    path = target.path
    while "{" in path:
        before, _, rest = path.partition("{")
        path = before + mutation.path_segment(rng) + rest.partition("}")[2]
    chance = rng.random() * (0.12 if spoilt else 1)
    if chance < 0.04:
        path = rng.choice(("http://evil.example", "//evil.example", "@evil", "*", "")) + path
    elif chance < 0.08:
        path += "/" + mutation.path_segment(rng)
    elif chance < 0.10:
        path = mutation.broken_bytes(rng, path.encode()).decode("latin-1").replace("\r", "").replace("\n", "")
    elif chance < 0.12:
        path += "/" * rng.randint(1, 3)
    if rng.random() < (0.6 if target.query else 0.05):
        path += "?" + mutation.query(rng, target.query).replace("\r", "").replace("\n", "")
    return path


def _body(rng: Random, target: Target, credentials: Credentials) -> bytes:
    if target.example is None:
        return rng.randbytes(rng.randint(1, 200)) if rng.random() < 0.05 else b""
    example = dict(target.example)
    for name in ("refresh_token", "token"):
        if name in example:
            example[name] = _token(rng, rng.choice((credentials.refresh_token, credentials.access_token)))
    if target.spares_credentials and "refresh_token" in example:
        example["refresh_token"] = mutation.text(rng)
    if target.media_type != "application/json":
        return mutation.form_body(rng, example)
    if target.hashes and rng.random() < _RARELY:
        return json.dumps(example).encode()
    return mutation.json_body(rng, example, surely_refused=target.hashes)


def _headers(rng: Random, target: Target, credentials: Credentials) -> list[tuple[str, str]]:
    headers = [("Host", "127.0.0.1" if rng.random() < 0.98 else rng.choice(_HOSTS))]
    if target.example is not None:
        wanted = target.media_type if rng.random() < 0.95 else rng.choice(_MEDIA_TYPES)
        headers.append(("Content-Type", wanted))
    if rng.random() < 0.7:
        headers.append(("Authorization", _authorization(rng, target, credentials)))
    if rng.random() < 0.1:
        cookie = _token(rng, credentials.refresh_token) if not target.spares_credentials else mutation.text(rng)
        headers.append(("Cookie", f"{rng.choice(('__Host-refresh_token', 'a', ''))}={_one_line(cookie)}"))
    for name, values in (("Accept", _ACCEPTS), ("Origin", _ORIGINS)):
        if rng.random() < 0.1:
            headers.append((name, rng.choice(values)))
    if rng.random() < 0.15:
        names = ("X-Forwarded-For", "X-Request-ID", "If-None-Match", "Range", "Expect", "User-Agent", "Sec-Fetch-Site",
                 "Accept-Encoding", "Forwarded", "X-HTTP-Method-Override", "X-" + "y" * 300)  # fmt: skip
        headers.append((rng.choice(names), _one_line(mutation.text(rng))))
    if rng.random() < 0.01:
        headers.extend(headers)  # each of them twice
    return headers


def _authorization(rng: Random, target: Target, credentials: Credentials) -> str:
    good = credentials.admin_token if target.internal else credentials.access_token
    if target.spares_credentials:
        return f"Bearer {_one_line(mutation.text(rng))}"
    basic = b64encode(credentials.client.encode()).decode()
    if target.media_type == "application/x-www-form-urlencoded" and rng.random() < 0.7:
        return f"Basic {basic}"
    match rng.randrange(10):
        case 0:
            return f"Bearer {_one_line(_token(rng, good))}"
        case 1:
            return f"Bearer {credentials.refresh_token}"
        case 2:
            return f"Basic {b64encode(rng.randbytes(rng.randint(0, 40))).decode()}"
        case 3:
            return _one_line(mutation.text(rng))
        case _:
            return f"Bearer {good}"


def _token(rng: Random, token: str) -> str:
    """The token itself, or something like it."""
    match rng.randrange(5):
        case 0:
            return token
        case 1:
            return mutation.broken_bytes(rng, token.encode()).decode("latin-1")
        case 2:
            parts = token.split(".")
            parts[rng.randrange(len(parts))] = b64encode(mutation.text(rng).encode("utf-8", "replace")).decode()
            return ".".join(parts)
        case 3:
            return "." * rng.choice((1, 2, 4, 3000))
        case _:
            return mutation.text(rng)


def _one_line(chosen: str) -> str:
    """Without what would end the header: there must be one request, however bad."""
    return chosen.replace("\r", "").replace("\n", "")[:4_000]
