"""A terminal of 80 columns, for what a command does only there: asking, colours, fitting its width."""

import fcntl
import os
import pty
import struct
import termios
from collections.abc import Mapping, Sequence

from tests.support.command import spawn


def at_a_terminal(*arguments: str, env: Mapping[str, str], types: Sequence[str] = ()) -> tuple[str, int]:
    """What the terminal shows, and the exit code. Each of `types` is typed when there is a question."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = spawn(
        *arguments,
        env={name: value for name, value in env.items() if name not in ("COLUMNS", "LINES")},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    shown, waiting = b"", list(types)
    try:
        while True:
            try:
                read = os.read(master, 65536)
            except OSError:  # Linux says so when the other side has closed
                break
            if not read:  # and macOS so
                break
            shown += read
            if waiting and shown.endswith(b": "):
                os.write(master, waiting.pop(0).encode())
        process.wait(30)
    finally:
        process.kill()
        process.wait()
        os.close(master)
    return shown.decode().replace("\r\n", "\n"), process.returncode
