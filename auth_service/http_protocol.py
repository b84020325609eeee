"""The HTTP/1.1 protocol of every connection: uvicorn's, with a limit on what a client sends, and on how long it takes.

What a well-formed request is, httptools decides, and is strict; what it lets pass and we do not is in `_check_head`.
"""

import asyncio
import re
import socket
import sys
from enum import Enum, auto
from typing import Any, cast
from uuid import uuid4

import httptools
import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from auth_service.edge.connection_limit import ConnectionLimit
from auth_service.edge.raw_refusals import RawRefusals
from auth_service.endpoints.body import MAX_BYTES as _BODY
from auth_service.metrics import CONNECTIONS_CUT

_HEAD = 16_384  # bytes of the request line and all headers
_FRAMED_BODY = 8 * _BODY  # bytes, with what chunks put around them
_PATIENCE = 5.0  # seconds for a first byte, for a head from its first byte on, and for a body
_FAREWELL = 0.5  # seconds for a request that was on its way here when the process began to stop
_STALL = 5.0  # seconds
_LEAST = 32_768  # bytes that must go out in that time while there are that many
_KERNEL_BUFFER = 131_072  # bytes

# RFC 9110 §7.2; uri-host and port of RFC 3986. Nothing here is ever made of it.
_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*")

_log = structlog.get_logger(__name__)


class _Refused(Exception):
    """Raised in a callback of the parser: this is no request that we take."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class _Awaited(Enum):
    """What of a request is to come next."""

    FIRST_BYTE = auto()  # of a new connection
    HEAD = auto()
    BODY = auto()
    NOTHING = auto()  # until the next request begins


class HttpProtocol(HttpToolsProtocol):
    """One connection of either port; `public_connections` is asked for a place on all ports but the internal one.

    A refusal is written only where no answer is under way, and ends the connection: what follows it may have been meant
    as something else. There is one request at a time: who sends the next before the answer gets the answer and
    `Connection: close`, as RFC 9112 §9.3.2 allows, so that nothing queues.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        internal_port: int,
        public_connections: ConnectionLimit,
        refusals: RawRefusals,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._internal_port = internal_port
        self._public_connections = public_connections
        self._refusals = refusals
        self._has_place = False
        self._deaf = False
        """Whether what comes is not read any more."""
        self._is_last = False
        """Whether the next answer is the last of this connection."""
        self._awaited = _Awaited.FIRST_BYTE
        self._timed: _Awaited | None = None
        """What the deadline is for."""
        self._deadline: asyncio.TimerHandle | None = None
        self._received = 0
        """Bytes since the request began, or more: those of the same packet before its first are counted too."""
        self._body_received = 0
        self._body_head: bytes | None = None
        """A head for the body of a request that offers an upgrade: httptools would take that body for the next one."""
        self._stall_timer: asyncio.TimerHandle | None = None

    # The connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.server is None or self.server[1] != self._internal_port:
            self._has_place = self._public_connections.enter()
            if not self._has_place:
                # Not a log line each: there may be a flood of them.
                self._refuse(503, "too_many_connections", log=False)
                return
        if sys.platform == "linux":
            # The kernel would otherwise take up to four megabytes for a client before we hear that it does not read.
            connection = cast(socket.socket, transport.get_extra_info("socket"))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _KERNEL_BUFFER)
        self._keep_time()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._has_place:
            self._public_connections.leave()
        self._stop_clock()
        self._stop_watching_reader()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The process stops: end the connection with the answer that is under way, or that is asked for in a moment.

        uvicorn's own would close an idle connection at once, and who is just sending a request on it could not tell
        whether it was carried out.
        """
        self._is_last = True
        unanswered = self._unanswered()
        if unanswered is not None:
            unanswered.keep_alive = False
        else:
            self.loop.call_later(_FAREWELL, self._close_if_idle)
        self._do_not_wait_for_a_stuck_reader()

    def timeout_keep_alive_handler(self) -> None:
        # uvicorn's own timer of a connection that is idle after an answer. It is not stopped by each byte that comes.
        if self._awaited is _Awaited.NOTHING and self.cycle.response_complete:
            self._close()

    # What comes in.

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._received += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            # RFC 9110 §7.8: an upgrade that is not offered is ignored, and HTTP/1.1 goes on.
            if self._body_head is not None:
                self.parser = httptools.HttpRequestParser(self)
                self.parser.feed_data(self._body_head)
            self.data_received(data[exc.args[0] :])
            return
        except httptools.HttpParserError as exc:
            cause = exc.__context__
            if isinstance(cause, _Refused):
                self._refuse(cause.status, cause.reason)
            else:
                self._refuse(400, "malformed")
            return
        if self._awaited is not _Awaited.BODY:
            if self._received > _HEAD:
                self._refuse(431, "large_head")
        elif self._received > _HEAD + _FRAMED_BODY:
            self._refuse(413, "large_body")
        if self._timed is not self._awaited:
            self._keep_time()

    def on_message_begin(self) -> None:
        if self._body_head is not None:
            return
        super().on_message_begin()
        self._awaited = _Awaited.HEAD
        self._timed = None  # a head of its own, with a time of its own

    def on_headers_complete(self) -> None:
        if self._body_head is not None:
            self._body_head, self.headers = None, []
            return
        self._check_head()
        super().on_headers_complete()
        if self._is_last:
            self.cycle.keep_alive = False
        self._awaited = _Awaited.BODY
        self._body_received = 0
        length = next((value for name, value in self.headers if name == b"content-length"), b"0")
        if int(length) > _BODY:  # of digits alone, httptools sees to it
            self.cycle.keep_alive = False
        framing = [field for field in self.headers if field[0] in (b"content-length", b"transfer-encoding")]
        if framing and self.parser.should_upgrade():
            self._body_head = b"POST / HTTP/1.1\r\n%b: %b\r\n\r\n" % framing[0]
        self.headers = []  # what the parser finds from now on are trailers

    def on_body(self, body: bytes) -> None:
        self._body_received += len(body)
        if self._body_received > _BODY:
            if self.cycle.response_complete:
                raise _Refused(413, "large_body")
            self.cycle.keep_alive = False  # the application answers 413 when it reads this
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._body_head is not None:
            return
        if self.headers:
            # Merged with the headers, they would get past whatever a proxy has checked (RFC 9110 §6.5.1).
            raise _Refused(400, "trailers")
        self._awaited = _Awaited.NOTHING
        self._received = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._do_not_wait_for_a_stuck_reader()

    def _check_head(self) -> None:
        """Raises _Refused for what httptools takes and we do not."""
        if self._unanswered() is not None:
            raise _Refused(400, "pipelined")
        if sum(len(name) + len(value) + 4 for name, value in self.headers) + len(self.url) > _HEAD:
            raise _Refused(431, "large_head")
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise _Refused(400, "version")
        hosts = [value for name, value in self.headers if name == b"host"]
        # RFC 9112 §3.2: none, several or one that is no host at all must be refused.
        if len(hosts) > 1 or (not hosts and version == "1.1") or (hosts and not _HOST.fullmatch(hosts[0])):
            raise _Refused(400, "host")
        for name, value in self.headers:
            # RFC 9112 §6.1: no other coding is understood here, and HTTP/1.0 has none.
            if name == b"transfer-encoding" and (value.lower() != b"chunked" or version == "1.0"):
                raise _Refused(400, "transfer_encoding")

    # Refusals and deadlines.

    def _unanswered(self) -> RequestResponseCycle | None:
        """The request whose answer has not been sent whole."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle if cycle is not None and not cycle.response_complete else None

    def _refuse(self, status: int, reason: str, *, log: bool = True) -> None:
        """Read nothing more, answer with `status` where that can only be meant for what was refused, and close."""
        self._deaf = True
        self._stop_clock()
        CONNECTIONS_CUT.labels(reason=reason).inc()
        request_id = uuid4().hex
        if log:
            _log.info("connection_cut", request_id=request_id, reason=reason)
        unanswered = self._unanswered()
        answers = self._awaited is not _Awaited.BODY
        if unanswered is not None:
            if not unanswered.more_body:
                unanswered.keep_alive = False  # it came whole: it is answered, and then the connection is closed
                return
            answers = not unanswered.response_started
            # The application waits for the rest of a body that will not come.
            unanswered.disconnected = True
            unanswered.message_event.set()
        if answers:
            self.transport.write(self._refusals.answer(status, request_id))
        self._close()

    def _close_if_idle(self) -> None:
        if self._awaited in (_Awaited.FIRST_BYTE, _Awaited.NOTHING) and self._unanswered() is None:
            self._close()

    def _close(self) -> None:
        self.transport.close()
        self._do_not_wait_for_a_stuck_reader()

    def _keep_time(self) -> None:
        """Give the client its time for what is awaited; nothing that it sends before that is whole prolongs it."""
        self._stop_clock()
        self._timed = self._awaited
        if self._awaited is not _Awaited.NOTHING and not self._deaf:
            self._deadline = self.loop.call_later(_PATIENCE, self._too_slow)

    def _too_slow(self) -> None:
        self._deadline = None
        if self._awaited is _Awaited.FIRST_BYTE:
            # It has asked for nothing: browsers open such connections, and would take an answer for that to a request.
            CONNECTIONS_CUT.labels(reason="silent").inc()
            self._close()
        else:
            self._refuse(408, "slow_head" if self._awaited is _Awaited.HEAD else "slow_body")

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # A client that does not read while there is more for it than the buffer holds.

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        if not self.transport.is_closing():
            self._stop_watching_reader()
        super().resume_writing()

    def _do_not_wait_for_a_stuck_reader(self) -> None:
        # Closing waits until the rest is sent.
        if self._stall_timer is None and self.transport.get_write_buffer_size():
            self._watch_reader()

    def _watch_reader(self) -> None:
        self._stop_watching_reader()
        unsent = self.transport.get_write_buffer_size()
        self._stall_timer = self.loop.call_later(_STALL, self._judge_reader, unsent)

    def _judge_reader(self, unsent: int) -> None:
        if unsent - self.transport.get_write_buffer_size() >= min(_LEAST, unsent):
            self._watch_reader()
        else:
            CONNECTIONS_CUT.labels(reason="stuck_reader").inc()
            _log.info("stuck_reader_aborted")
            self.transport.abort()

    def _stop_watching_reader(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
