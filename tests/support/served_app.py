"""An ASGI application on a real uvicorn, in a thread of its own, and what its server has logged."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from auth_service.devstack.process import free_port

# uvicorn says so of every WebSocket that is refused with an HTTP answer, which it sends all the same.
_OF_A_REFUSED_WEBSOCKET = "ASGI callable returned without completing handshake."

_THREADS = "served-app-"


@dataclass(slots=True)
class ServedApp:
    """Where it listens, and every line of its server's log from warnings on."""

    port: int
    complaints: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def thread(self) -> str:
        return f"{_THREADS}{self.port}"

    @property
    def socket_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"


@contextmanager
def served_app(app: Any) -> Iterator[ServedApp]:
    """Serve `app` for as long as the body runs."""
    served = ServedApp(free_port())
    config = uvicorn.Config(
        app,
        port=served.port,
        http="httptools",
        ws="websockets-sansio",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    listener = _Listener(served)
    loggers = [logging.getLogger("uvicorn.error"), logging.getLogger("asyncio")]
    for logger in loggers:
        logger.addHandler(listener)
    thread = threading.Thread(target=server.run, name=served.thread, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 10
        while not server.started:
            assert thread.is_alive(), served.complaints
            assert time.monotonic() < deadline, "it has not started"
            time.sleep(0.005)
        yield served
    finally:
        server.should_exit = True
        thread.join(10)
        for logger in loggers:
            logger.removeHandler(listener)
    assert not thread.is_alive(), "it has not stopped"


class _Listener(logging.Handler):
    def __init__(self, served: ServedApp) -> None:
        super().__init__(logging.WARNING)
        self._served = served
        self.setFormatter(logging.Formatter("%(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        another = str(record.threadName).startswith(_THREADS) and record.threadName != self._served.thread
        if another or record.getMessage() == _OF_A_REFUSED_WEBSOCKET:
            return
        self._served.complaints.append(self.format(record))
