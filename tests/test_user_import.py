"""`users import`: what is kept of a file of accounts, what is refused, and that imported people can log in."""

import asyncio
import base64
import csv
import hashlib
import io
import json
import re
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import argon2
import pytest

from auth_service.accounts.imported_hash import ImportedHashRefused, imported_hash
from auth_service.settings import Settings
from tests.support.command import Outcome, command, environment, spawned
from tests.support.service import Service, problem
from tests.support.terminal import at_a_terminal

_PASSWORD = "correct horse battery staple"
_OURS = re.compile(r"\$argon2id\$v=19\$m=19456,t=2,p=1\$")

Import = Callable[..., Outcome]


def _django_pbkdf2(password: str, *, rounds: int = 1000, salt: str = "Xy12abCD34ef") -> str:
    digest = hashlib.pbkdf2_hmac("sha256", password.encode(), salt.encode(), rounds)
    return f"pbkdf2_sha256${rounds}${salt}${base64.b64encode(digest).decode()}"


def _passlib_pbkdf2(password: str, *, rounds: int = 1000, salt: bytes = b"sixteen bytes!!!") -> str:
    digest = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    salt64, digest64 = (base64.b64encode(data).decode().rstrip("=").replace("+", ".") for data in (salt, digest))
    return f"$pbkdf2-sha256${rounds}${salt64}${digest64}"


def _argon2(password: str, *, memory: int = 1024, passes: int = 1, lanes: int = 1, kind: str = "ID") -> str:
    hasher = argon2.PasswordHasher(passes, memory, lanes, type=getattr(argon2.Type, kind))
    return hasher.hash(password, salt=b"sixteen bytes!!!")  # the same in every process: it is in names of tests


_QUICK = _django_pbkdf2(_PASSWORD, rounds=1)


@pytest.fixture
def load(settings: Callable[..., Settings], tmp_path: Path) -> Import:
    """Writes a file and imports it."""

    def load(content: str | bytes, *options: str, name: str = "users.csv") -> Outcome:
        file = tmp_path / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return command("users", "import", str(file), *options, settings=settings())

    return load


@pytest.fixture
def usernames(settings: Callable[..., Settings]) -> Callable[[], list[str]]:
    """The names of those who are there."""

    def listed() -> list[str]:
        users = json.loads(command("users", "list", "--json", settings=settings()).out)
        return [user["username"] for user in users]

    return listed


def _summary(done: Outcome) -> tuple[int, int, list[int]]:
    """Imported, skipped, and the lines that are bad; the exit code must agree with them."""
    found = json.loads(done.out)
    assert done.code == (1 if found["bad"] else 0)
    return found["imported"], found["skipped"], [bad["line"] for bad in found["bad"]]


def _csv(*rows: tuple[str, ...], header: str = "username,email,password_hash") -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return f"{header}\n{text.getvalue()}"


def _someone(name: str, password_hash: str = _QUICK) -> tuple[str, str, str]:
    return name, f"{name}@example.com", password_hash


@pytest.mark.parametrize(
    "password_hash",
    [
        _django_pbkdf2(_PASSWORD),
        f"argon2{_argon2(_PASSWORD, memory=102400, passes=2, lanes=8)}",
        f"argon2{_argon2(_PASSWORD, kind='I')}",
        _passlib_pbkdf2(_PASSWORD),
        _argon2(_PASSWORD),
        _argon2(_PASSWORD, kind="D"),
        _argon2(_PASSWORD, memory=19456, passes=2),
    ],
    ids=["Django pbkdf2", "Django argon2id", "Django argon2i", "passlib pbkdf2", "argon2id", "argon2d", "ours"],
)
@pytest.mark.parametrize("layout", ["csv", "jsonl"])
async def test_an_imported_user_logs_in_and_is_hashed_anew(
    load: Import, service: Service, password_hash: str, layout: str
) -> None:
    row = _someone("ada", password_hash)
    fields = dict(zip(("username", "email", "password_hash"), row, strict=True))
    content = _csv(row) if layout == "csv" else json.dumps(fields)
    done = await asyncio.to_thread(load, content, name=f"users.{layout}")
    assert (done.code, done.out) == (0, "1 imported, 0 skipped because they exist, 0 bad.\n")
    wrong = await service.http.post("/user/login", json={"email": row[1], "password": f"{_PASSWORD}!"})
    assert problem(wrong) == (401, "invalid_credentials")
    for _ in range(2):  # by the imported hash, then by ours
        answer = await service.http.post("/user/login", json={"email": row[1], "password": _PASSWORD})
        assert answer.status_code == 200, answer.text
        [kept] = await service.sql("SELECT password_hash FROM users")
        assert _OURS.match(kept["password_hash"])


async def test_a_django_password_that_normalisation_changes_still_logs_in(load: Import, service: Service) -> None:
    password = "ﬁne Ｗide ²passwörd"  # Django hashes what was typed
    assert unicodedata.normalize("NFKC", password) != password
    done = await asyncio.to_thread(load, _csv(_someone("ada", _django_pbkdf2(password))))
    assert done.code == 0
    for typed in (password, unicodedata.normalize("NFKC", password)):  # from now on both are one password
        answer = await service.http.post("/user/login", json={"username": "ada", "password": typed})
        assert answer.status_code == 200, answer.text


async def test_granted_scopes_are_imported(load: Import, service: Service) -> None:
    rows = [
        {"username": "text", "email": "t@example.com", "password_hash": _QUICK, "scopes": "orders:read  orders:write"},
        {"username": "list", "email": "l@example.com", "password_hash": _QUICK, "scopes": ["orders:read"]},
        {"username": "null", "email": "n@example.com", "password_hash": _QUICK, "scopes": None},
    ]
    done = await asyncio.to_thread(load, "\n".join(map(json.dumps, rows)), name="users.jsonl")
    assert done.code == 0, done.err
    for name, held in (("text", {"orders:read", "orders:write"}), ("list", {"orders:read"}), ("null", set())):
        answer = await service.http.post("/user/login", json={"username": name, "password": _PASSWORD})
        assert set(answer.json()["scope"].split()) == {"profile"} | held


@pytest.mark.parametrize(
    ("password_hash", "says"),
    [
        ("!", "no usable password"),
        ("!Xk9dW2pLq7vRt3mN", "no usable password"),
        ("", "is missing"),
        (_PASSWORD, "is not a whole hash"),
        ("md5$salt$0cc175b9c0f1b6a831c399e269772661", "is not a whole hash"),
        ("$2b$12$KIXQJ5g6l1k8y0r9cZ5ZfO5o5o5o5o5o5o5o5o5o5o5o5o5o5o5o5", "is not a whole hash"),
        ("pbkdf2_sha1$1000$salt$AAAA", "is not a whole hash"),
        ("pbkdf2_sha256$garbage", "is not a whole hash"),
        (_django_pbkdf2(_PASSWORD).replace("$1000$", "$01000$"), "is not a whole hash"),
        (_django_pbkdf2(_PASSWORD).replace("$1000$", "$-1$"), "is not a whole hash"),
        (_django_pbkdf2(_PASSWORD).replace("$1000$", "$١٠$"), "is not a whole hash"),
        (_django_pbkdf2(_PASSWORD)[:-2], "is not a whole hash"),
        (f"{_django_pbkdf2(_PASSWORD)}\x00", "is not a whole hash"),
        (f"{_django_pbkdf2(_PASSWORD)} ", "is not a whole hash"),
        (_django_pbkdf2(_PASSWORD).replace("$1000$", "$5000001$"), "rounds"),
        (_django_pbkdf2(_PASSWORD).replace("$1000$", "$9999999999$"), "rounds"),
        (_passlib_pbkdf2(_PASSWORD).replace("$1000$", "$5000001$"), "rounds"),
        (_passlib_pbkdf2(_PASSWORD)[:-1], "is not a whole hash"),
        ("$pbkdf2-sha256$29000$c2FsdA", "is not a whole hash"),
        ("$argon2id$foo", "is not a whole hash"),
        ("$argon2id$v=19$m=1024,t=1,p=1$c2FsdHNhbHQ$aGFzaA", "is not a whole hash"),
        (_argon2(_PASSWORD).replace("v=19", "v=99"), "is not a whole hash"),
        (_argon2(_PASSWORD).replace("m=1024", "m=262145"), "too much memory"),
        (_argon2(_PASSWORD).replace("m=1024", "m=4194304"), "too much memory"),
        (_argon2(_PASSWORD).replace("t=1", "t=4000000"), "time to check"),
        (_argon2(_PASSWORD).replace("p=1", "p=65"), "too much memory"),
        (_argon2(_PASSWORD).replace("p=1", "p=16000000"), "too much memory"),
        (_argon2(_PASSWORD).replace("m=1024", "m=7"), "less memory"),
        (f"argon2${_argon2(_PASSWORD)}", "is not a whole hash"),
        (f"$argon2id$v=19$m=1024,t=1,p=1$c2FsdHNhbHQ${'a' * 500}", "is not a whole hash"),
    ],
)
def test_a_hash_that_nobody_should_have_to_check_is_refused(load: Import, password_hash: str, says: str) -> None:
    rows = [dict(zip(("username", "email", "password_hash"), _someone("ada", password_hash), strict=True))]
    done = load("\n".join(map(json.dumps, rows)), "--json", name="users.jsonl")
    assert _summary(done) == (0, 0, [1])
    [bad] = json.loads(done.out)["bad"]
    assert bad["reason"].startswith("password_hash ")
    assert says in bad["reason"]
    assert not password_hash or password_hash not in done.out + done.err


def test_what_is_accepted_can_be_checked_in_seconds() -> None:
    """The limits themselves, not only what is beyond them."""
    dearest = [
        imported_hash(_django_pbkdf2(_PASSWORD).replace("$1000$", "$5000000$")),
        imported_hash(_argon2(_PASSWORD).replace("m=1024,t=1,p=1", "m=262144,t=4,p=1")),
    ]
    for kept in dearest:
        with pytest.raises(ImportedHashRefused):
            imported_hash(kept.replace("$5000000$", "$5000001$").replace("t=4", "t=5"))
    assert imported_hash("argon2" + _argon2(_PASSWORD)).startswith("$argon2id$v=19$")


def test_bad_rows_are_reported_by_line_and_the_good_ones_kept(load: Import, usernames: Callable[[], list[str]]) -> None:
    content = (
        "username,email,password_hash\n"  # 1
        f"ada,ada@example.com,{_QUICK}\n"
        f",nobody@example.com,{_QUICK}\n"  # 3
        f"b@b,bob@example.com,{_QUICK}\n"  # 4
        f"bob,example.com,{_QUICK}\n"  # 5
        "bob,bob@example.com,!\n"  # 6
        f"bob,bob@example.com,{_QUICK},extra\n"  # 7
        "bob,bob@example.com\n"  # 8
        "\n"
        f'"cy\nril",cyril@example.com,{_QUICK}\n'  # 10, 11
        f"dora,dora@example.com,{_QUICK}\n"
        f"{'e' * 65},e@example.com,{_QUICK}\n"  # 13
        f"eve\x1b[2J,eve@example.com,{_QUICK}\n"  # 14
        f"fay,fay@example.com,{_QUICK}"
    )
    assert _summary(load(content, "--json")) == (3, 0, [3, 4, 5, 6, 7, 8, 10, 13, 14])
    assert usernames() == ["ada", "dora", "fay"]
    done = load(content)
    assert done.out == "0 imported, 3 skipped because they exist, 9 bad.\n"
    reported = re.findall(r"users\.csv:(\d+): (.*)", done.err)
    assert [int(line) for line, _ in reported] == [3, 4, 5, 6, 7, 8, 10, 13, 14]
    assert reported[0][1] == "username is missing"
    assert "more columns" in reported[4][1]
    assert "fewer columns" in reported[5][1]
    assert "\x1b" not in done.err
    assert _QUICK not in done.err


def test_bad_json_lines_are_reported_by_line_and_the_good_ones_kept(
    load: Import, usernames: Callable[[], list[str]]
) -> None:
    def line(**changes: Any) -> str:
        return json.dumps({"username": "bob", "email": "bob@example.com", "password_hash": _QUICK} | changes)

    lines = [
        line(username="ada", email="ada@example.com"),  # 1
        "",
        "not JSON",  # 3
        "[]",
        '"text"',
        "[" * 100_000,
        line(username=None),  # 7
        line(username=7),
        line(username=["bob"]),
        line(username="b\x00b"),
        line(username="b\ud800b"),  # 11
        line(email="bob@example.com\n"),
        line(scopes="a\\b"),
        line(scopes=[7]),
        line(scopes={"orders:read": True}),  # 15
        line(is_superuser=True),
        '{"username": "bob", "username": "root", "email": "b@example.com", "password_hash": "x"}',
        f'{{"username": {"9" * 5000}}}',
        "{}",  # 19
        line(username="zoë", email="zoë@example.com"),
    ]
    done = load("\r\n".join(lines), "--json", name="users.jsonl")
    assert _summary(done) == (2, 0, [*range(3, 20)])
    assert usernames() == ["ada", "zoë"]
    reasons = {bad["line"]: bad["reason"] for bad in json.loads(done.out)["bad"]}
    assert reasons[3] == reasons[6] == "not JSON"
    assert reasons[4] == "not a JSON object"
    assert reasons[8] == "username must be text"
    assert reasons[17] == "names a member twice"
    assert "root" not in done.out


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "BOM"])
@pytest.mark.parametrize("layout", ["csv", "jsonl"])
def test_a_byte_order_mark_and_either_line_ending_are_no_part_of_a_value(
    load: Import, usernames: Callable[[], list[str]], mark: bytes, ending: str, layout: str
) -> None:
    if layout == "csv":
        lines = ['" Username","EMAIL",password_hash', *(",".join(_someone(name)) for name in ("ada", "bob")), ""]
    else:
        lines = [
            json.dumps(dict(zip(("username", "email", "password_hash"), _someone(name), strict=True)))
            for name in ("ada", "bob")
        ]
    done = load(mark + ending.join(lines).encode(), "--json", name=f"users.{layout}")
    assert _summary(done) == (2, 0, [])
    assert usernames() == ["ada", "bob"]


@pytest.mark.parametrize("layout", ["csv", "jsonl"])
def test_bytes_that_are_not_utf_8_spoil_their_row_alone(load: Import, layout: str) -> None:
    if layout == "csv":
        rows = [b"username,email,password_hash", *(",".join(_someone(name)).encode() for name in ("ada", "b?b", "cyd"))]
    else:
        rows = [b""]
        for name in ("ada", "b?b", "cyd"):
            row = dict(zip(("username", "email", "password_hash"), _someone(name), strict=True))
            rows.append(json.dumps(row).encode())
    done = load(b"\n".join(rows).replace(b"b?b", b"b\xe9b"), "--json", name=f"users.{layout}")
    assert _summary(done) == (2, 0, [3])
    assert json.loads(done.out)["bad"][0]["reason"] == "not UTF-8"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("users.csv", b"", "needs a first line"),
        ("users.csv", b"\n\n", "needs a first line"),
        ("users", b"", "needs a first line"),
        ("users.csv", ",".join(_someone("ada")).encode(), "needs a first line"),
        ("users.csv", b"username;email;password_hash\n", "needs a first line"),
        ("users.csv", b"username,email\nada,ada@example.com\n", "password_hash is not there"),
        ("users.csv", b"username,email,password_hash,scope\n", "number 4"),
        ("users.csv", b"username,email,password_hash,email\n", "two columns email"),
        ("users.csv", b'"username,email\n', "not CSV"),
        ("users.csv", "username,email,password_hash\n".encode("utf-16"), "save it as UTF-8"),
        ("users.jsonl", "{}\n".encode("utf-16"), "save it as UTF-8"),
        ("users.json", b'[\n{"username": "ada"}\n]', "one object a line"),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused_as_a_whole(load: Import, name: str, content: bytes, says: str) -> None:
    done = load(content, name=name)
    assert (done.code, done.out) == (1, "")
    [line] = done.err.splitlines()
    assert says in line
    assert "ada@" not in line, "what is taken for a header may be somebody's account"


def test_nothing_after_a_quote_that_is_not_closed_is_taken_for_a_row(
    load: Import, usernames: Callable[[], list[str]]
) -> None:
    # What somebody once chose as a name must not become an account when a quote before it is missing.
    content = (
        "username,email,password_hash,scopes\n"
        f"ada,ada@example.com,{_QUICK},\n"
        f'"bob,bob@example.com,{_QUICK},\n'
        f'"x\nroot,root@example.com,{_QUICK},auth:admin\ny",x@example.com,{_QUICK},\n'
    )
    done = load(content, "--json")
    assert _summary(done) == (1, 0, [3])
    assert "nothing from this line on" in json.loads(done.out)["bad"][0]["reason"]
    assert usernames() == ["ada"]


def test_an_empty_file_of_json_lines_holds_nobody(load: Import) -> None:
    assert _summary(load(b"", "--json", name="users.jsonl")) == (0, 0, [])
    assert _summary(load(b"username,email,password_hash\n", "--json")) == (0, 0, [])


def test_accounts_that_exist_are_skipped_and_kept_as_they_are(load: Import, settings: Callable[..., Settings]) -> None:
    first = _csv(_someone("Ada"), _someone("bob"))
    assert _summary(load(first, "--json")) == (2, 0, [])
    before = command("users", "list", "--json", settings=settings()).out
    again = _csv(
        _someone("ADA", _django_pbkdf2("another password")),
        ("someone else", "BOB@example.com", _QUICK),
        ("ａｄａ", "wide@example.com", _QUICK),  # the same name, full width
        _someone("cyd"),
    )
    assert _summary(load(again, "--json")) == (1, 3, [])
    after = json.loads(command("users", "list", "--json", settings=settings()).out)
    assert after[:2] == json.loads(before)
    assert [user["username"] for user in after] == ["Ada", "bob", "cyd"]


@pytest.mark.parametrize("dry_run", [False, True], ids=["", "dry run"])
@pytest.mark.parametrize("apart", [1, 700], ids=["in one batch", "in two batches"])
def test_of_two_lines_for_one_account_the_first_counts(
    load: Import, usernames: Callable[[], list[str]], apart: int, dry_run: bool
) -> None:
    assert load(_csv(_someone("existing"))).code == 0
    between = [_someone(f"user{n}") for n in range(apart)]
    rows = [
        _someone("ada"),
        ("taken", "existing@example.com", _QUICK),  # skipped, so that its name stays free
        *between,
        ("ADA", "other@example.com", _QUICK),
        ("other", "ADA@example.com", _QUICK),
        ("taken", "free@example.com", _QUICK),
    ]
    done = load(_csv(*rows), "--json", *(("--dry-run",) if dry_run else ()))
    assert _summary(done) == (apart + 2, 3, [])
    if dry_run:
        assert usernames() == ["existing"]
    else:
        assert {"ada", "taken"} <= set(usernames())


def test_a_dry_run_says_the_same_and_writes_nothing(load: Import, usernames: Callable[[], list[str]]) -> None:
    assert load(_csv(_someone("ada"))).code == 0
    content = _csv(_someone("ada"), _someone("bob"), _someone("cyd", "!"))
    dry = load(content, "--dry-run")
    assert (dry.code, dry.out) == (1, "1 would be imported, 1 skipped because they exist, 1 bad.\n")
    assert usernames() == ["ada"]
    assert load(content).out == "1 imported, 1 skipped because they exist, 1 bad.\n"


def test_the_format_is_found_out_by_name_or_by_beginning_or_said(load: Import) -> None:
    as_csv = _csv(_someone("ada"))
    as_json = json.dumps(dict(zip(("username", "email", "password_hash"), _someone("bob"), strict=True)))
    assert _summary(load(as_csv, "--json", name="export.CSV")) == (1, 0, [])
    assert _summary(load(as_json, "--json", name="export.txt")) == (1, 0, [])
    assert _summary(load(as_csv, "--json", name="export.txt")) == (0, 1, [])
    assert _summary(load(as_csv, "--json", "--format", "csv", name="users.jsonl")) == (0, 1, [])
    assert _summary(load(as_csv, "--json", name="users.jsonl")) == (0, 0, [1, 2])


def test_a_pipe_is_read_and_a_file_that_is_not_there_is_named(settings: Callable[..., Settings]) -> None:
    for path, name in (("-", "ada"), ("/dev/stdin", "bob")):
        done = spawned("users", "import", path, env=environment(settings()), stdin=_csv(_someone(name)))
        assert (done.code, done.out, done.err) == (0, "1 imported, 0 skipped because they exist, 0 bad.\n", "")
    done = command("users", "import", "nowhere.csv", settings=settings())
    assert (done.code, done.out) == (2, "")
    assert "nowhere.csv" in done.err


def test_twenty_thousand_rows_take_seconds(load: Import) -> None:
    content = _csv(*(_someone(f"user{n}") for n in range(20_000)))
    began = time.monotonic()
    done = load(content, "--json")
    took = time.monotonic() - began
    assert _summary(done) == (20_000, 0, [])
    assert took < 15, "a few seconds; the limit leaves room for a slow machine"


def test_a_progress_bar_is_shown_at_a_terminal_alone(settings: Callable[..., Settings], tmp_path: Path) -> None:
    file = tmp_path / "users.csv"
    file.write_text(_csv(*(_someone(f"user{n}") for n in range(1200)), _someone("bad", "!")))
    shown, code = at_a_terminal("users", "import", str(file), env=environment(settings()))
    assert code == 1
    assert "Importing" in shown
    assert "100%" in shown
    assert "1200 imported" in shown
    done = spawned("users", "import", str(file), env=environment(settings()))
    assert done.err == f"{file}:1202: password_hash says that the account has no usable password (Django)\n"
    assert done.out == "0 imported, 1200 skipped because they exist, 1 bad.\n"


def test_thousands_of_bad_rows_do_not_bury_the_summary(load: Import) -> None:
    done = load(_csv(*(_someone(f"user{n}", "!") for n in range(1000))))
    assert done.code == 1
    assert len(done.err.splitlines()) == 101
    assert done.err.splitlines()[-1] == "... and 900 more: --json names them all"
    assert done.out == "0 imported, 0 skipped because they exist, 1000 bad.\n"
