"""Logging: structlog, as JSON for machines or in colours for people, with a request id on every line.

Only allow-listed fields pass, and an exception is logged as its type and frames: messages of libraries quote input.
"""

import logging
import sys
import traceback
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

_FIELDS = frozenset(
    {
        "action", "actor", "actor_id", "address", "count", "duration_ms", "error", "event", "exc_info",
        "frames", "job", "kid", "level", "method", "outcome", "pid", "port", "problem", "reason",
        "request_id", "route", "sid", "status", "store", "sub", "target", "target_id", "timestamp", "version",
        "workers",
    }
)  # fmt: skip

# Libraries whose DEBUG lines hold values, or whose INFO lines only repeat ours.
_QUIET = {"tortoise": logging.WARNING, "asyncpg": logging.WARNING, "asyncio": logging.WARNING, "uvicorn": logging.INFO}


def configure_logging(*, level: str, style: Literal["json", "console"]) -> None:
    """Write our events and the standard library's to standard output in one form. For this whole process."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _only_known_fields,
    ]
    if style == "json":
        # ASCII only: CR, LF and ESC are escaped, so no input can forge a line.
        ending: list[Processor] = [_exception_as_frames, structlog.processors.JSONRenderer(ensure_ascii=True)]
    else:
        ending = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stdout.isatty(), pad_event_to=24, exception_formatter=_write_frames
            )
        ]
    least = logging.getLevelNamesMapping()[level.upper()]
    # Our own events do not go through the standard library: it costs as much as a query, on every request.
    structlog.configure(
        processors=[*shared, *ending],
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        wrapper_class=structlog.make_filtering_bound_logger(least),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[meta, *ending]))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(least)
    for name, quiet in _QUIET.items():
        logging.getLogger(name).setLevel(max(quiet, least))


def _only_known_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {name: value for name, value in event.items() if name in _FIELDS or name.startswith("_")}


def _write_frames(out: TextIO, exc_info: ExcInfo) -> None:
    """For people; the renderer's own would show local variables, and a password is one."""
    kind, _exc, trace = exc_info
    out.write(f"\n{''.join(traceback.format_tb(trace))}{kind.__name__}")


def _exception_as_frames(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    exc_info = event.pop("exc_info", None)
    if exc_info is True:
        exc_info = sys.exc_info()
    exc = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if isinstance(exc, BaseException):
        event["error"] = type(exc).__name__
        event["frames"] = [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(exc.__traceback__)
        ]
    return event
