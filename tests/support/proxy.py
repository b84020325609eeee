"""A TCP proxy on loopback that can hold, cut and refuse: what lies between a process and its store."""

import contextlib
import socket
import threading
from typing import Literal

Direction = Literal["to_server", "to_client"]


class Proxy:
    """Forwards to 127.0.0.1:`target`. Threads, so that it goes on while an event loop under test is busy."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._open = {"to_server": threading.Event(), "to_client": threading.Event()}
        self._seen = {"to_server": threading.Event(), "to_client": threading.Event()}
        for event in self._open.values():
            event.set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self, direction: Direction) -> None:
        """From now on keep back what goes in `direction`, until `release`."""
        self._seen[direction].clear()
        self._open[direction].clear()

    def wait_until_held(self, direction: Direction, *, seconds: float = 10) -> None:
        """Return once there is something that is kept back."""
        assert self._seen[direction].wait(seconds), f"nothing went {direction}"

    def release(self, direction: Direction) -> None:
        self._open[direction].set()

    def cut(self) -> None:
        """Break every connection there is; new ones are accepted."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def close(self) -> None:
        self._listener.close()
        for event in self._open.values():
            event.set()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            self._pairs.append((client, server))
            for source, sink, direction in ((client, server, "to_server"), (server, client, "to_client")):
                threading.Thread(target=self._pump, args=(source, sink, direction), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, direction: Direction) -> None:
        try:
            while data := source.recv(65536):
                if not self._open[direction].is_set():
                    self._seen[direction].set()
                    self._open[direction].wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass
