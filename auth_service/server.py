"""The server: two listening sockets, one or several processes, and how they stop."""

import asyncio
import contextlib
import functools
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import cast

import structlog
import uvicorn
from uvicorn.supervisors import Multiprocess, multiprocess

from auth_service import __version__
from auth_service.app import create_app
from auth_service.application import Application
from auth_service.edge.connection_limit import ConnectionLimit, usable_connections
from auth_service.edge.raw_refusals import RawRefusals
from auth_service.http_protocol import HttpProtocol
from auth_service.logs import configure_logging
from auth_service.setting_values import split_address
from auth_service.settings import Settings

GRACE = 20
"""Seconds for requests in flight at a stop; a supervisor must give ten more, to write down what is not yet."""

_FIRST_SIGN_OF_LIFE = 30  # seconds

_log = structlog.get_logger(__name__)

ApplicationFactory = Callable[[Settings], Application]


class PortBusy(Exception):
    """A port that a setting names cannot be bound."""


def _nothing() -> None:
    return


def serve(
    settings: Settings, *, factory: ApplicationFactory = create_app, before_stop: Callable[[], None] = _nothing
) -> None:
    """Serve both ports until SIGTERM or SIGINT, then finish what is in flight and return.

    Raises PortBusy before anything is started. `factory` must be importable by name: each worker calls it.
    `before_stop` is called when a stop is asked for, before anything is drained: everything waits for it.
    """
    _allow_many_connections()
    public = bind(settings.listen, "AUTH_LISTEN")
    internal = bind(settings.internal_listen, "AUTH_INTERNAL_LISTEN")
    configure_logging(level=settings.log_level, style=settings.log_format)
    config = uvicorn.Config(
        functools.partial(_application, settings, factory, internal.getsockname()[1]),
        factory=True,
        workers=settings.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        http=_protocol(settings, internal_port=internal.getsockname()[1]),
        ws="none",
        lifespan="on",
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        # Our own edge decides whose forwarding headers are believed.
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE,
        # A worker is asked for a sign of life while it still imports: uvicorn's own five seconds would, on a busy
        # machine, end every worker before it has begun.
        timeout_worker_healthcheck=_FIRST_SIGN_OF_LIFE,
    )
    _log.info(
        "listening",
        address=f"http://{_shown(public)}",
        port=internal.getsockname()[1],
        workers=settings.workers,
        version=__version__,
    )
    sockets = [public, internal]
    if settings.workers > 1:
        # Read by prometheus_client when a worker starts Python anew, so that each answers for all of them.
        directory = os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="auth-service-metrics-")
        try:
            # uvicorn has no other way to say what its workers are.
            multiprocess.Process = _Worker  # type: ignore[misc]
            _Workers(config, sockets, before_stop).run()
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    else:
        # uvicorn raises the signal again once it has stopped: a stop that was asked for is not a failure.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _ignore)
        # Its terminal is gone, unless it was started so that it does not mind (nohup).
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            signal.signal(signal.SIGHUP, _as_a_stop)
        _Server(config, before_stop).run(sockets)


def bind(address: str, setting: str) -> socket.socket:
    """A socket bound to `address`. Raises PortBusy, which names the setting."""
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as exc:
        bound.close()
        raise PortBusy(f"cannot listen on {address} ({exc.strerror}): stop what does, or change {setting}") from exc
    bound.set_inheritable(True)
    return bound


class _Server(uvicorn.Server):
    """uvicorn's, which at its end first accepts the connections that wait in the kernel's queue.

    Closing a listening socket resets those, and a client that has sent a request on one cannot tell whether it was
    carried out. A client that connects after that is refused at once and goes elsewhere.
    """

    def __init__(self, config: uvicorn.Config, before_stop: Callable[[], None] = _nothing) -> None:
        super().__init__(config)
        self._before_stop = before_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._before_stop()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        waiting = [connection for listening in sockets or () for connection in _taken_by_the_kernel(listening)]
        for server in self.servers:
            server.close()
        for connection in waiting:
            await asyncio.get_running_loop().connect_accepted_socket(self._connection, connection)
        await super().shutdown(sockets)

    def _connection(self) -> asyncio.Protocol:
        made: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return made(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


class _Worker(multiprocess.Process):
    """A worker that ends as a single process does; when its parent is gone, too: nobody else would tell it to."""

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        threading.Thread(target=_end_with_the_parent, daemon=True).start()
        super().target(sockets)

    @property
    def server(self) -> uvicorn.Server:
        if self._server is None:
            self._server = _Server(self.config)
        return self._server


class _Workers(Multiprocess):
    """uvicorn's, whose parent lets go of the ports with its workers.

    Held open until the last of them has gone, they would take requests that nobody reads, and reset them at the end.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], before_stop: Callable[[], None]) -> None:
        super().__init__(config, sockets)
        self._before_stop = before_stop

    def terminate_all(self) -> None:
        self._before_stop()
        for listening in self.sockets:
            listening.close()
        super().terminate_all()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _taken_by_the_kernel(listening: socket.socket) -> Iterator[socket.socket]:
    """The connections that nobody has accepted yet."""
    listening.setblocking(False)
    while True:
        try:
            connection, _ = listening.accept()
        except ConnectionAbortedError:
            continue  # its client has gone again
        except OSError:  # nearly always: there are no more
            return
        connection.setblocking(False)
        yield connection


def _protocol(settings: Settings, *, internal_port: int) -> type[asyncio.Protocol]:
    """The protocol of every connection; each worker gets a copy, and so counts its own."""
    made = functools.partial(
        HttpProtocol,
        internal_port=internal_port,
        public_connections=ConnectionLimit(usable_connections(settings.max_connections)),
        refusals=RawRefusals(secure=settings.issuer.startswith("https://")),
    )
    return cast(type[asyncio.Protocol], made)  # uvicorn only ever calls it


def _allow_many_connections() -> None:
    """Every verifier keeps a connection open, and many systems allow a process 1,024 files until it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # where the hard limit is more than the system gives
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _application(settings: Settings, factory: ApplicationFactory, internal_port: int) -> Application:
    configure_logging(level=settings.log_level, style=settings.log_format)  # again: a worker is a new process
    application = factory(settings)
    application.internal_port = internal_port
    return application


def _shown(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _ignore(_number: int, _frame: FrameType | None) -> None:
    return


def _as_a_stop(_number: int, _frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGTERM)
