"""The command line: what each command does to the service, what it prints, and how it refuses."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import click
import pytest

from auth_service.cli.main import main
from auth_service.devstack.process import free_port
from auth_service.settings import Settings
from tests.support.command import Outcome, command, environment, spawn, spawned
from tests.support.service import PASSWORD, Service, problem
from tests.support.stores import Stores
from tests.support.terminal import at_a_terminal
from tests.support.tokens import claims_of

_NEW_PASSWORD = "another long password"
_NOBODY = "nobody@example.com"

Run = Callable[..., Outcome]


@pytest.fixture
def run(settings: Callable[..., Settings]) -> Run:
    """Runs a command in this process, on this test's database and Redis."""
    return lambda *arguments, **options: command(*arguments, settings=settings(), **options)


def _add(run: Run, name: str, *more: str) -> None:
    done = run("users", "add", name, f"{name}@example.com", "--password-stdin", *more, stdin=f"{PASSWORD}\n")
    assert done.code == 0, done.err


def _every_command() -> Iterator[tuple[str, ...]]:
    def walk(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        context = click.Context(group)
        for name in group.list_commands(context):
            found = group.get_command(context, name)
            yield (*path, name)
            if isinstance(found, click.Group):
                yield from walk(found, (*path, name))

    yield ()
    yield from walk(main, ())


def test_the_commands_are_those_of_the_contract() -> None:
    assert {" ".join(path) for path in _every_command()} >= {
        "dev", "serve", "migrate", "check", "users add", "users list", "users disable", "users enable",
        "users set-password", "users grant", "users ungrant", "users import", "sessions list", "sessions revoke",
        "clients add", "clients list", "clients remove", "clients rotate-secret",
    }  # fmt: skip


@pytest.mark.parametrize("path", list(_every_command()), ids=" ".join)
def test_each_command_explains_itself_in_80_columns(path: tuple[str, ...]) -> None:
    short, long = command(*path, "-h"), command(*path, "--help")
    assert short == long
    assert (long.code, long.err) == (0, "")
    assert long.out.startswith("Usage: auth-service")
    assert all(len(line) <= 80 for line in long.out.splitlines())
    listed = long.out.partition("Commands:")[2]
    assert "..." not in listed, "the line of each command fits"
    options = re.findall(r"^  (-.*)", long.out.partition("Options:")[2], re.M)
    assert options
    assert "--help" in options[-1]


def test_a_wrong_call_exits_with_2_and_shows_the_usage() -> None:
    for arguments in (("nonsense",), ("users", "nonsense"), ("users", "disable"), ("users", "list", "--limit", "0")):
        done = command(*arguments)
        assert (done.code, done.out) == (2, ""), arguments
        assert "Usage: auth-service" in done.err
        assert "Error: " in done.err


def test_the_module_is_the_same_command_and_knows_its_version() -> None:
    done = spawned("--version", env=environment())
    assert (done.code, done.out, done.err) == (0, "auth-service, version 0.1.0\n", "")


async def test_an_added_user_logs_in(run: Run, service: Service) -> None:
    done = await asyncio.to_thread(
        run, "users", "add", "Ada", "ada@example.com", "--password-stdin", "--json", stdin=f"{PASSWORD}\r\n"
    )
    assert (done.code, done.err) == (0, "")
    user = json.loads(done.out)
    assert (user["username"], user["email"], user["scopes"]) == ("Ada", "ada@example.com", [])
    assert user["disabled_at"] is None
    assert user["created_at"].endswith("Z")
    answer = await service.http.post("/user/login", json={"username": "ADA", "password": PASSWORD})
    assert answer.status_code == 200
    assert answer.json()["user"]["id"] == user["id"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "says"),
    [
        (("ada", "other@example.com"), PASSWORD, 1, "user name"),
        (("other", "ADA@example.com"), PASSWORD, 1, "e-mail address"),
        (("other", "other@example.com"), "short", 1, "at least 12 characters"),
        (("other", "other@example.com"), "", 1, "at least 12 characters"),
        (("other", "other@example.com"), "x" * 1025, 1, "1024 bytes"),
        (("other", "other@example.com"), "OTHER@example.com", 1, "is the user name or the e-mail"),
        (("other", "other@example.com"), b"\xff\xfe enough bytes\n", 1, "not UTF-8"),
        (("o@ther", "other@example.com"), PASSWORD, 2, "USERNAME must not hold @"),
        (("other\x1b[2J", "other@example.com"), PASSWORD, 2, "USERNAME must hold only characters"),
        (("other", "example.com"), PASSWORD, 2, "EMAIL must be an e-mail address"),
        (("other\udcff", "other@example.com"), PASSWORD, 2, "USERNAME"),
        (("other", "other@example.com", "--scope", 'a"b'), PASSWORD, 2, "printable ASCII"),
    ],
)
def test_a_user_that_cannot_be_added_is_refused_with_the_reason(
    run: Run, arguments: tuple[str, ...], stdin: str | bytes, code: int, says: str
) -> None:
    _add(run, "ada")
    done = run("users", "add", *arguments, "--password-stdin", stdin=stdin)
    assert (done.code, done.out) == (code, "")
    assert says in done.err
    assert len(json.loads(run("users", "list", "--json").out)) == 1


def test_a_password_is_not_asked_for_where_there_is_no_terminal(run: Run) -> None:
    done = run("users", "add", "ada", "ada@example.com", stdin=f"{PASSWORD}\n{PASSWORD}\n")
    assert done.code == 2
    assert "--password-stdin" in done.err


def test_a_password_is_asked_for_at_a_terminal_and_not_shown(settings: Callable[..., Settings]) -> None:
    shown, code = at_a_terminal(
        "users", "add", "ada", "ada@example.com", env=environment(settings()), types=[f"{PASSWORD}\n", f"{PASSWORD}\n"]
    )
    assert code == 0, shown
    assert "Added ada (" in shown
    assert PASSWORD not in shown


def test_users_are_listed_searched_and_paged(run: Run) -> None:
    for name in ("ada", "bob", "b%b", "b_b", "b\\b", "b'b"):
        _add(run, name, *(("--scope", "orders:read", "--scope", "auth:admin") if name == "ada" else ()))

    def names(*arguments: str) -> list[str]:
        done = run("users", "list", "--json", *arguments)
        assert done.code == 0, done.err
        return [user["username"] for user in json.loads(done.out)]

    assert names() == sorted(("ada", "bob", "b%b", "b_b", "b\\b", "b'b"))
    # What LIKE and SQL would take for themselves is looked for as it is.
    assert names("--search", "%") == ["b%b"]
    assert names("--search", "_") == ["b_b"]
    assert names("--search", "\\") == ["b\\b"]
    assert names("--search", "'") == ["b'b"]
    assert names("--search", "' OR 1=1 --") == []
    assert names("--search", "BOB@EXAMPLE") == ["bob"]
    assert names("--limit", "2") == ["ada", "b%b"]
    assert names("--limit", "2", "--after", "B%B") == ["b'b", "b\\b"]
    page = run("users", "list", "--limit", "2")
    assert page.err == "There are more: --after b%b\n"
    assert "orders:read" in page.out
    assert run("users", "list", "--search", "zz").out == "No user.\n"
    assert run("users", "list", "--limit", "6").err == ""


async def test_a_disabled_user_is_out_until_enabled(run: Run, service: Service) -> None:
    user = await service.register()
    done = await asyncio.to_thread(run, "users", "disable", user.email, "--json")
    assert done.code == 0
    assert json.loads(done.out)["disabled_at"] is not None
    assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_revoked")
    credentials = {"email": user.email, "password": PASSWORD}
    assert problem(await service.http.post("/user/login", json=credentials)) == (401, "invalid_credentials")
    done = await asyncio.to_thread(run, "users", "enable", user.id, "--json")
    assert done.code == 0
    assert json.loads(done.out)["disabled_at"] is None
    assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_revoked")
    await service.login(user)


async def test_a_new_password_ends_every_session(run: Run, service: Service) -> None:
    user = await service.register()
    done = await asyncio.to_thread(
        run, "users", "set-password", user.username, "--password-stdin", stdin=f"{_NEW_PASSWORD}\n"
    )
    assert done.code == 0
    assert "every session has ended" in done.out
    assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_revoked")
    for password, status in ((PASSWORD, 401), (_NEW_PASSWORD, 200)):
        answer = await service.http.post("/user/login", json={"email": user.email, "password": password})
        assert answer.status_code == status
    weak = await asyncio.to_thread(run, "users", "set-password", user.username, "--password-stdin", stdin="short\n")
    assert (weak.code, weak.out) == (1, "")
    assert "at least 12 characters" in weak.err


async def test_granted_scopes_are_in_the_next_token_and_taken_ones_are_not(run: Run, service: Service) -> None:
    user = await service.register()
    done = await asyncio.to_thread(run, "users", "grant", user.email, "orders:read", "orders:write")
    assert (done.code, done.out) == (0, f"{user.username} is granted orders:read orders:write.\n")
    again = await service.login(user)
    assert set(claims_of(again.access_token)["scope"].split()) == {"profile", "orders:read", "orders:write"}
    done = await asyncio.to_thread(run, "users", "ungrant", user.email, "orders:write", "--json")
    assert json.loads(done.out)["scopes"] == ["orders:read"]
    answer = await service.refresh(again.refresh_token)
    assert set(claims_of(answer.json()["access_token"])["scope"].split()) == {"profile", "orders:read"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("users", "disable"),
        ("users", "enable"),
        ("users", "set-password", "--password-stdin"),
        ("users", "grant"),
        ("users", "ungrant"),
        ("sessions", "list"),
        ("sessions", "list", "--user"),
        ("sessions", "revoke", "--user"),
    ],
    ids=" ".join,
)
def test_an_unknown_user_is_named_in_one_line_and_exits_with_1(run: Run, arguments: tuple[str, ...]) -> None:
    more = ("orders:read",) if arguments[-1] in ("grant", "ungrant") else ()
    for user in (_NOBODY, "nobody", str(uuid4()), ""):
        done = run(*arguments, user, *more, stdin=f"{_NEW_PASSWORD}\n")
        assert (done.code, done.out) == (1, ""), user
        [line] = done.err.splitlines()
        assert line.startswith(f"Error: there is no user {user!r}")
    done = run(*arguments, "\udcff", *more, stdin=f"{_NEW_PASSWORD}\n")
    assert done.code == 2
    assert "not UTF-8" in done.err


async def test_an_id_means_that_account_even_if_another_took_it_for_a_name(run: Run, service: Service) -> None:
    user = await service.register()
    impostor = await service.register(username=user.id)
    done = await asyncio.to_thread(run, "users", "disable", user.id, "--json")
    assert json.loads(done.out)["id"] == user.id
    assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_revoked")
    assert (await service.refresh(impostor.refresh_token)).status_code == 200


async def test_sessions_are_listed_and_revoked(run: Run, service: Service) -> None:
    user = await service.register()
    other = await service.login(user)
    done = await asyncio.to_thread(run, "sessions", "list", user.email, "--json")
    listed = json.loads(done.out)
    sids = [claims_of(one.access_token)["sid"] for one in (other, user)]
    assert [session["id"] for session in listed] == sids, "the newest first"
    assert listed[0].keys() == {
        "id", "created_at", "last_used_at", "expires_at", "transport", "scope", "ip", "user_agent",
    }  # fmt: skip
    done = await asyncio.to_thread(run, "sessions", "list", "--user", user.username, "--json")
    assert json.loads(done.out) == listed, "as `sessions revoke` takes it"
    done = await asyncio.to_thread(run, "sessions", "revoke", sids[0])
    assert (done.code, done.out) == (0, "Revoked 1 session.\n")
    assert problem(await service.refresh(other.refresh_token)) == (401, "refresh_token_revoked")
    assert problem(await service.me(other.access_token)) == (401, "invalid_token")
    assert (await service.me(user.access_token)).status_code == 200
    done = await asyncio.to_thread(run, "sessions", "revoke", sids[0])
    assert (done.code, done.out) == (0, "It had ended already.\n")
    third = await service.login(user)
    done = await asyncio.to_thread(run, "sessions", "revoke", "--user", user.username, "--json")
    assert (done.code, json.loads(done.out)) == (0, {"revoked": 2})
    for one in (user, third):
        assert problem(await service.refresh(one.refresh_token)) == (401, "refresh_token_revoked")
    done = await asyncio.to_thread(run, "sessions", "list", user.email)
    assert done.out == "No live session.\n"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "give either SESSION_ID or --user"),
        ((str(uuid4()), "--user", "ada"), 2, "give either SESSION_ID or --user"),
        (("not-an-id",), 2, "not a valid UUID"),
        ((str(uuid4()),), 1, "there is no such session"),
    ],
)
def test_a_session_that_cannot_be_revoked_is_refused(
    run: Run, arguments: tuple[str, ...], code: int, says: str
) -> None:
    done = run("sessions", "revoke", *arguments)
    assert (done.code, done.out) == (code, "")
    assert says in done.err


@pytest.mark.parametrize("users", [(), ("ada", "--user", "ada")])
def test_sessions_are_listed_of_one_user(run: Run, users: tuple[str, ...]) -> None:
    done = run("sessions", "list", *users)
    assert (done.code, done.out) == (2, "")
    assert "give one USER, whose sessions to list: `auth-service users list` names them" in done.err


def test_check_finds_nothing_wrong(run: Run) -> None:
    done = run("check")
    assert (done.code, done.err) == (0, "")
    states = re.findall(r"^(\w+) +(ok|away|wrong)  ", done.out, re.M)
    assert states == [(subject, "ok") for subject in ("settings", "postgresql", "redis", "keys")]
    rows = json.loads(run("check", "--json").out)
    assert [(row["subject"], row["state"]) for row in rows] == states


@pytest.mark.parametrize(
    ("changes", "subject", "says"),
    [
        ({"AUTH_DATABASE_URL": "postgresql://auth:canary@127.0.0.1:{free}/x"}, "postgresql", "nothing listens there"),
        ({"AUTH_DATABASE_URL": "postgresql://auth:canary@127.0.0.1:{pg}/x"}, "postgresql", "user or password"),
        ({"AUTH_DATABASE_URL": "{url}_no"}, "postgresql", "no database of this name"),
        ({"AUTH_DATABASE_URL": "postgresql://auth:canary@nowhere.invalid/x"}, "postgresql", "host name is not known"),
        ({"AUTH_REDIS_URL": "redis://:canary@127.0.0.1:{free}"}, "redis", "nothing listens there"),
        ({"AUTH_REDIS_URL": "redis://127.0.0.1:{redis}/9999"}, "redis", "database number"),
    ],
)
def test_check_says_which_store_is_away_and_why(
    run: Run, settings: Callable[..., Settings], stores: Stores, changes: dict[str, str], subject: str, says: str
) -> None:
    places = {
        "free": free_port(),
        "pg": stores.postgresql.port,
        "redis": stores.redis.port,
        "url": settings().database_url.get_secret_value(),
    }
    given = {name: value.format(**places) for name, value in changes.items()}
    done = run("check", given=given)
    assert done.code == 1
    [line] = re.findall(rf"^{subject} +away +(.*)", done.out, re.M)
    assert says in line
    [name] = given
    assert name in line
    assert "canary" not in done.out + done.err
    if subject == "postgresql":
        refused = run("users", "list", given=given)
        assert (refused.code, refused.out) == (1, "")
        assert "`auth-service check` says more" in refused.err
        assert len(refused.err.splitlines()) == 1


def test_check_names_a_setting_that_is_misspelt(run: Run) -> None:
    done = run("check", given={"AUTH_TRUSTED_PROXY": "10.0.0.0/8", "AUTH_AUDIENCE": "orders", "AUTH_PORT": "tcp://x"})
    assert done.code == 0
    assert re.findall(r"^(AUTH_\w+) +(\w+)", done.out, re.M) == [("AUTH_TRUSTED_PROXY", "unknown")]
    assert "is AUTH_TRUSTED_PROXIES meant?" in done.out


async def test_the_log_never_mixes_with_the_answer(run: Run, service: Service) -> None:
    user = await service.register()
    given = {"AUTH_REDIS_URL": f"redis://127.0.0.1:{free_port()}"}
    done = await asyncio.to_thread(run, "users", "disable", user.email, "--json", given=given)
    assert done.code == 0, "PostgreSQL has the last word"
    assert json.loads(done.out)["disabled_at"] is not None
    assert "redis_not_told" in done.err
    assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_revoked")


def test_a_table_in_a_file_is_neither_folded_nor_coloured(settings: Callable[..., Settings], run: Run) -> None:
    long = "a" * 60
    _add(run, long)
    env = environment(settings()) | {"COLUMNS": "40", "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    done = spawned("users", "list", env=env)
    assert done.code == 0, done.err
    assert "\x1b" not in done.out
    assert all(line == line.rstrip() for line in done.out.splitlines())
    header, row = done.out.splitlines()
    assert re.split(r" {2,}", header) == ["username", "email", "last login", "disabled", "scopes", "created", "id"]
    cells = re.split(r" {2,}", row)
    assert cells[:2] == [long, f"{long}@example.com"]
    assert all(header.index(title) == row.index(cell) for title, cell in (("email", cells[1]), ("id", cells[6])))


async def test_a_table_on_a_terminal_fits_it(settings: Callable[..., Settings], service: Service) -> None:
    user = await service.register()
    for arguments in (("users", "list"), ("sessions", "list", user.email), ("check",)):
        shown, code = await asyncio.to_thread(at_a_terminal, *arguments, env=environment(settings()))
        assert code == 0, shown
        plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
        table = [line for line in plain.splitlines() if not line.startswith("No room here for: ")]
        assert all(len(line) <= 80 for line in table)
        if arguments[0] == "sessions":
            assert claims_of(user.access_token)["sid"] in plain, "what the next command needs is never cut"
        if arguments[0] == "users":
            assert user.email in plain


def test_a_reader_that_goes_away_is_no_error(run: Run, settings: Callable[..., Settings], tmp_path: Path) -> None:
    rows = ["username,email,password_hash", *(f"user{n},user{n}@example.com,{_HASH}" for n in range(2000))]
    (tmp_path / "many.csv").write_text("\n".join(rows))
    assert run("users", "import", str(tmp_path / "many.csv")).code == 0
    for options in ("", "--json"):
        done = subprocess.run(
            ["bash", "-c", f'"{sys.executable}" -m auth_service users list --limit 2000 {options} | head -1'],
            env=environment(settings()),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert len(done.stdout.splitlines()) == 1
        assert done.stderr == ""


def test_ctrl_c_ends_a_command_without_a_traceback(settings: Callable[..., Settings]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        url = f"postgresql://auth@127.0.0.1:{silent.getsockname()[1]}/auth"
        process = spawn("users", "list", env=environment(settings(), AUTH_DATABASE_URL=url))
        connection, _ = silent.accept()  # now it waits for an answer
        with connection:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.strip()) == (1, "", "Aborted!")


def test_a_terminal_that_lacks_a_letter_is_no_error(run: Run, settings: Callable[..., Settings]) -> None:
    _add(run, "žofie")
    done = spawned("users", "list", env=environment(settings()) | {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"})
    assert done.code == 0, done.err
    assert "\\u017eofie" in done.out


_HASH = "$pbkdf2-sha256$29000$P8dYa22tdY5RSmkNIYRw7g$9Op5LYBJ48MVssYnv/G2QRQAxdM2rKiR0/tHQF99zP0"
