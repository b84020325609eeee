"""The HTTP/1.1 protocol of every connection: uvicorn's, and an end for a client that does not read what it is sent."""

import asyncio
import socket
import sys
from typing import cast

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_STALL = 5.0  # seconds
_LEAST = 32_768  # bytes that must go out in that time while there are that many
_KERNEL_BUFFER = 131_072  # bytes

_log = structlog.get_logger(__name__)


class HttpProtocol(HttpToolsProtocol):
    """Aborts a connection whose client has stopped reading while there was more for it than the buffer holds.

    uvicorn itself would wait for ever, and keep what it could not send.
    """

    _stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if sys.platform == "linux":
            # The kernel would otherwise take up to four megabytes for a client before we hear that it does not read.
            connection = cast(socket.socket, transport.get_extra_info("socket"))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _KERNEL_BUFFER)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._arm()

    def resume_writing(self) -> None:
        self._disarm()
        super().resume_writing()

    def shutdown(self) -> None:
        super().shutdown()
        # Closing waits until the rest is sent, and must not wait for one who does not read it.
        if self._stall_timer is None and self.transport.get_write_buffer_size():
            self._arm()

    def _arm(self) -> None:
        self._disarm()
        unsent = self.transport.get_write_buffer_size()
        self._stall_timer = self.loop.call_later(_STALL, self._judge, unsent)

    def _disarm(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _judge(self, unsent: int) -> None:
        if unsent - self.transport.get_write_buffer_size() >= min(_LEAST, unsent):
            self._arm()
        else:
            _log.info("stuck_reader_aborted")
            self.transport.abort()
