"""One operation of the HTTP interface: its route, and what the OpenAPI document says of it."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

Handler = Callable[[Request], Awaitable[Response]]
Credential = Literal["bearer", "admin_bearer", "client", "client_bearer", "refresh_cookie"]


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer. `model` is what the body holds; None: nothing, or not JSON."""

    description: str
    model: Any = None
    media_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    streamed_as: str | None = None
    """The media type of the same as a stream, for a client whose `Accept` names it."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A method on a path. `problems` are the status codes it may refuse with, beyond those that any operation has."""

    method: str
    path: str
    handler: Handler
    summary: str
    tag: str
    answers: dict[int, Answer]
    problems: tuple[int, ...] = ()
    body: type[BaseModel] | None = None
    body_required: bool = True
    body_media_type: str = "application/json"
    oauth_errors: bool = False
    """Whether its refusals are those of RFC 6749 §5.2 instead of problem details."""
    query: type[BaseModel] | None = None
    credentials: tuple[Credential, ...] = ()
    anonymous: bool = True
    path_parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    slash_too: bool = False
    """Whether the path is also answered with a slash at its end, without a redirect."""


def routes(operations: Iterable[Operation]) -> list[BaseRoute]:
    """Starlette routes: one a path, so that a wrong method is answered with 405 and the right `Allow`."""
    by_path: dict[str, list[Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, []).append(operation)
    made: list[BaseRoute] = []
    for path, group in by_path.items():
        methods = {operation.method for operation in group}
        resource = _Resource(path, {operation.method: operation.handler for operation in group})
        made.append(Route(path, resource, methods=sorted(methods)))
        if any(operation.slash_too for operation in group):
            made.append(Route(f"{path}/", resource, methods=sorted(methods)))
    return made


class _Resource:
    """Serves the methods of one path, and leaves its template in the scope for the log and the metrics."""

    def __init__(self, path: str, handlers: dict[str, Handler]) -> None:
        self._path = path
        self._handlers = handlers | ({"HEAD": handlers["GET"]} if "GET" in handlers else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route_template"] = self._path
        request = Request(scope, receive, send)
        response = await self._handlers[scope["method"]](request)
        await response(scope, receive, send)
