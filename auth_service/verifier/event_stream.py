"""Reading server-sent events (WHATWG HTML §9.2) from bytes as they come. What the events say is not known here."""

from collections.abc import AsyncIterator
from typing import NamedTuple

_MAX_EVENT = 1_048_576  # bytes
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event: its type ("message" where none was named) and its data."""

    type: str
    data: str


class UnreadableStream(Exception):
    """The bytes are not an event stream that anybody would send on purpose."""


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    """The events in `chunks`, each as soon as it is whole. Raises UnreadableStream for one over 1 MiB, or not UTF-8."""
    rest, size, after_cr, begins = b"", 0, False, True
    name, data = "", list[str]()
    async for chunk in chunks:
        if not chunk:
            continue
        # A line ends in CR, LF or both, and the two may come in different chunks.
        fresh = chunk.removeprefix(b"\n") if after_cr else chunk
        after_cr = chunk.endswith(b"\r")
        *lines, rest = (rest + fresh).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            size += len(line)
            if begins:
                line, begins = line.removeprefix(_BYTE_ORDER_MARK), False
            if not line:
                if data:
                    yield Event(name or "message", "\n".join(data))
                name, data, size = "", [], 0
                continue
            field, _, value = _text(line).partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                name = value
            elif field == "data":
                data.append(value)
        if size + len(rest) > _MAX_EVENT:
            raise UnreadableStream("an event is too large")


def _text(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise UnreadableStream("not UTF-8") from None
