"""A lean HTTP client for races: one keep-alive connection each, nothing between the test and the socket."""

import asyncio
import json
from typing import Any, Self


class Connection:
    """One connection to the service; one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and JSON of the answer."""
        data = json.dumps(body).encode()
        self._writer.write(
            b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (path.encode(), len(data), data)
        )
        await self._writer.drain()
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head[9:12])
        _, found, rest = head.partition(b"\r\ncontent-length:")
        length = int(rest.split(b"\r\n", 1)[0]) if found else 0
        content = await self._reader.readexactly(length) if length else b""
        return status, json.loads(content) if content else {}

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()
