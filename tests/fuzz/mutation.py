"""Mutations: hostile values, and ways to break text, JSON, forms and bytes. All chance is in the `Random` given."""

import json
from random import Random
from typing import Any
from urllib.parse import quote, quote_from_bytes

TEXTS = (
    "", " ", "\0", "a\0b", "\r\n", "a\r\nX-Injected: yes", "\n", "\x1b[31m", "\x7f", "\x85", "\u2028", "\ufeff",
    "\u202e", "\ud800", "\udfff", "\uffff", "\U0001d54f", "\u0130", "\u00df", "\ufb01", "e\u0301" * 20,
    "\u0300" * 100, "' OR 1=1 --", "'; DROP TABLE users; --", "%", "_", "\\", "%s%n%x", "${jndi:ldap://x}", "{{7*7}}",
    "<script>", "../../x", "..%2f..%2f", "//evil.example", "http://evil.example/", "@evil", "null", "true", "NaN",
    "-1", "0", "1e999", "9" * 30, "9" * 400, "0x10", "\u0661", "2030-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00",
    "x" * 255, "x" * 256, "x" * 1025, "x" * 9000, "ada", "ada@example.com", "a@" * 50, "profile", "auth:admin",
    "body", "cookie", "web", "client_credentials", "refresh_token", "authorization_code", "a" * 64 + "@" + "b" * 190,
    "[]", "{}", '"', "W10", "e30", "00000000-0000-0000-0000-000000000000", "0B9B4A0E7F0C4D8B9A513F6A2F1C8E57",
    "{0b9b4a0e-7f0c-4d8b-9a51-3f6a2f1c8e57}",
)  # fmt: skip

_OTHERS: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**40, 0.1, 1e308, float("inf"), float("nan"),
    [], [[]], {}, {"a": 1}, [None] * 50, ["profile"], [1, "a"], {"": ""}, {"$ne": None}, {"__proto__": {}},
)  # fmt: skip


def text(rng: Random) -> str:
    """A hostile string, or several in one."""
    chosen = rng.choice(TEXTS)
    return chosen if rng.random() < 0.7 else chosen + rng.choice(TEXTS)


def value(rng: Random) -> Any:
    """A hostile JSON value."""
    return text(rng) if rng.random() < 0.5 else rng.choice(_OTHERS)


def broken_bytes(rng: Random, data: bytes) -> bytes:
    """`data` with a few bytes changed, taken out, put in or repeated."""
    broken = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(broken) + 1)
        match rng.randrange(6):
            case 0:
                broken[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                del broken[place : place + rng.randint(1, 8)]
            case 2:
                broken[place:place] = rng.randbytes(rng.randint(1, 8))
            case 3:
                broken[place:place] = broken[place : place + rng.randint(1, 64)]
            case 4:
                broken[place:place] = rng.choice((b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b"\xff", b"0"))
            case _:
                del broken[place:]
    return bytes(broken)


def json_body(rng: Random, example: dict[str, Any], *, surely_refused: bool) -> bytes:
    """`example` as JSON with something wrong; unless `surely_refused`, it may still be a good body."""
    members = dict(example)
    name = rng.choice(list(members)) if members else ""
    match rng.randrange(10):
        case 0:
            members[name] = rng.choice(_OTHERS)
            if surely_refused:
                members[""] = 1
        case 1:
            members[text(rng)] = value(rng)
            members[""] = 1
        case 2:
            written = json.dumps(members)
            return f"{written[:-1]}, {json.dumps(name)}: {json.dumps(value(rng))}}}".encode()  # a member twice
        case 3:
            return json.dumps(value(rng)).encode()
        case 4:
            opening = rng.choice(("[", '{"a":', "[[", '{"":['))
            return (opening * rng.choice((10, 500, 4000)))[:16_384].encode()
        case 5:
            return json.dumps(members).encode(rng.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7")))
        case 6:
            return json.dumps(members).encode() + b" " * rng.choice((15_000, 16_384, 20_000)) + b"]"
        case 7:
            return rng.randbytes(rng.choice((0, 1, 16, 300)))
        case _ if surely_refused:
            return json.dumps(members).encode()[: rng.randrange(2, 40)]
        case 8:
            return broken_bytes(rng, json.dumps(members).encode())
        case _:
            members[name] = value(rng)
    return json.dumps(members, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def form_body(rng: Random, example: dict[str, Any]) -> bytes:
    """`example` as a form with something wrong."""
    pairs = [(name, str(member)) for name, member in example.items() if rng.random() < 0.8]
    match rng.randrange(7):
        case 0 if pairs:
            pairs.append((rng.choice(pairs)[0], text(rng)))
        case 1:
            pairs.append((text(rng), text(rng)))
        case 2 if pairs:
            place = rng.randrange(len(pairs))
            pairs[place] = (pairs[place][0], text(rng))
        case 3:
            return b"a=b&" * rng.choice((40, 400, 4_000))
        case 4:
            return rng.randbytes(rng.choice((0, 1, 40, 400)))
        case 5:
            return broken_bytes(rng, form(pairs))
    return form(pairs)


def form(pairs: list[tuple[str, str]]) -> bytes:
    return "&".join(f"{_quoted(name)}={_quoted(member)}" for name, member in pairs).encode()


def path_segment(rng: Random) -> str:
    """A hostile piece of a path, escaped in one of several ways."""
    chosen = text(rng)[:2_000]
    match rng.randrange(4):
        case 0:
            return _quoted(chosen)
        case 1:
            return _quoted(_quoted(chosen))
        case 2:
            return quote_from_bytes(rng.randbytes(rng.randint(1, 12)), safe="")
        case _:
            return quote(chosen.encode("utf-8", "replace"), safe="/:@?#[]!$&'()*+,;=%")


def query(rng: Random, names: tuple[str, ...]) -> str:
    known = [*names, "limit", "cursor", "search"]
    chosen = [rng.choice(known) if rng.random() < 0.8 else text(rng)[:300] for _ in range(rng.choice((1, 1, 2, 40)))]
    joined = "&".join(f"{_quoted(name)}={_quoted(text(rng)[:300])}" for name in chosen)
    return joined if rng.random() < 0.8 else broken_bytes(rng, joined.encode()).decode("latin-1")


def _quoted(chosen: str) -> str:
    return quote(chosen.encode("utf-8", "surrogatepass"), safe="")
