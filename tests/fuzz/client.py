"""The attacker's end of a connection: sends one attack, reads what comes back, and says what it was."""

import asyncio
import re

from tests.fuzz.attack import Attack
from tests.support.processes import ServedProcess

_ANSWER_TIME = 20.0  # seconds
_RAW_TIME = 0.1  # seconds that something unframed is given: it may be an unfinished request, and no answer is due
_STATUS = re.compile(rb"(?:^|\r\n|[}\n])HTTP/1\.1 (\d{3}) ")
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n")


class AttackClient:
    """Sends one attack at a time, from an address of its own, over connections that it keeps while it may."""

    def __init__(self, process: ServedProcess, *, number: int) -> None:
        self._process = process
        self._address = f"127.0.2.{number + 1}"
        self._open: dict[bool, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def send(self, attack: Attack) -> list[int]:
        """The statuses of the answers. Raises TimeoutError or ConnectionError where one is due and none comes."""
        if not attack.framed:
            return await self._send_raw(attack)
        reader, writer = self._open.get(attack.internal) or await self._connect(attack.internal)
        self._open.pop(attack.internal, None)
        keep = False
        try:
            async with asyncio.timeout(_ANSWER_TIME):
                writer.write(attack.data)
                status, keep = await _answer(reader, attack)
        except asyncio.IncompleteReadError as exc:
            raise ConnectionError(f"closed without a whole answer: {exc.partial[:200]!r}") from exc
        finally:
            if keep:
                self._open[attack.internal] = reader, writer
            else:
                writer.transport.abort()
        return [status]

    def close(self) -> None:
        for _, writer in self._open.values():
            writer.transport.abort()

    async def _connect(self, internal: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        port = self._process.internal_port if internal else self._process.port
        return await asyncio.open_connection("127.0.0.1", port, local_addr=(self._address, 0), limit=4_194_304)

    async def _send_raw(self, attack: Attack) -> list[int]:
        reader, writer = await self._connect(attack.internal)
        received = b""
        try:
            writer.write(attack.data)
            async with asyncio.timeout(_RAW_TIME):
                while more := await reader.read(65_536):
                    received += more
        except (TimeoutError, ConnectionError):
            pass  # what came until then is what there is
        finally:
            writer.transport.abort()
        return [int(status) for status in _STATUS.findall(received)]


async def _answer(reader: asyncio.StreamReader, attack: Attack) -> tuple[int, bool]:
    """The status of the one answer, and whether its connection can be used again."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        if status >= 200:
            break
    if b"\r\ncontent-type: text/event-stream" in head:
        return status, False  # it does not end
    length = _LENGTH.search(head)
    if length and not attack.head and status != 304:
        await reader.readexactly(int(length[1]))
    elif b"\r\ntransfer-encoding: chunked\r\n" in head and not attack.head:
        await reader.readuntil(b"0\r\n\r\n")
    # A method that only we take for HEAD, or one that the server does, would put answer and request out of step.
    return status, b"\r\nconnection: close\r\n" not in head
