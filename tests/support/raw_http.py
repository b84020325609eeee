"""HTTP by hand: bytes in, bytes out, until the other side closes. For what no HTTP client would send."""

import asyncio
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """One answer, as it came."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @classmethod
    def all_in(cls, data: bytes) -> list[Self]:
        """The answers that make up `data`, each with a length or to the end. Fails on anything else."""
        answers = []
        while data:
            head, found, data = data.partition(b"\r\n\r\n")
            assert found, head[:200]
            first, *lines = head.decode("latin-1").split("\r\n")
            assert first.startswith("HTTP/1.1 "), first[:200]
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            length = int(headers.get("content-length", len(data)))
            assert len(data) >= length
            answers.append(cls(int(first[9:12]), headers, data[:length]))
            data = data[length:]
        return answers


async def sent(port: int, data: bytes, *, seconds: float = 10) -> bytes:
    """What comes back for `data` until the connection is closed, which must be within `seconds`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(seconds):
            received = b""
            try:
                writer.write(data)
                await writer.drain()
                while more := await reader.read(65_536):
                    received += more
            except ConnectionError:
                pass  # closed while we were still sending
            return received
    finally:
        writer.transport.abort()


async def answered(port: int, data: bytes, *, seconds: float = 10) -> list[RawAnswer]:
    """The answers to `data`; the connection must then be closed."""
    return RawAnswer.all_in(await sent(port, data, seconds=seconds))
