"""The probes of the internal port. Liveness touches nothing: restarting this process would not mend a store."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable

from starlette.requests import Request
from starlette.responses import Response

from auth_service.endpoints.operation import Answer, Operation
from auth_service.errors import Unavailable
from auth_service.readiness import Readiness

_PATIENCE = 0.5  # seconds

Check = Callable[[], Awaitable[object]]


class HealthEndpoints:
    """`/healthz`, `/readyz` and `/startupz`."""

    def __init__(
        self, *, readiness: Readiness, stores: dict[str, Check], keys_problem: Callable[[], str | None]
    ) -> None:
        self._readiness = readiness
        self._stores = stores
        self._keys_problem = keys_problem

    def operations(self) -> Iterable[Operation]:
        health = {200: Answer("Yes.", {"type": "object"}), 503: Answer("No.", {"type": "object"})}
        yield Operation("GET", "/healthz", self.alive, "Is the process alive?", "Health", {200: health[200]})
        yield Operation("GET", "/readyz", self.ready, "May it be sent traffic?", "Health", health)
        yield Operation("GET", "/startupz", self.started, "Has everything answered once?", "Health", health)

    async def alive(self, _request: Request) -> Response:
        return _answer(200, {"status": "alive"})

    async def ready(self, _request: Request) -> Response:
        """Ready while it holds signing keys and is not draining. A store that is down is named but changes nothing:
        all replicas share the stores, and taking every one out of service would take the JWKS with them. So is a key
        that cannot be read: a wrong encryption key is most often everywhere."""
        found = await asyncio.gather(*map(_problem, self._stores.values()))
        problems = {name: problem for name, problem in zip(self._stores, found, strict=True) if problem is not None}
        stores = {name: "down" if name in problems else "up" for name in self._stores}
        readiness = self._readiness
        status = "draining" if readiness.draining else "ready" if readiness.ready else "starting"
        body: dict[str, object] = {"status": status, "stores": stores}
        if problems:
            body["problems"] = problems
        keys_problem = self._keys_problem()
        if keys_problem is not None:
            body["keys"] = keys_problem
        return _answer(200 if readiness.ready else 503, body)

    async def started(self, _request: Request) -> Response:
        readiness = self._readiness
        body: dict[str, object] = {
            "status": "started" if readiness.started else "starting",
            "answered": sorted(readiness.answered),
            "problems": readiness.problems,
        }
        return _answer(200 if readiness.started else 503, body)


async def _problem(check: Check) -> str | None:
    """What keeps a store from answering. One that hangs must not hold up the probe: Kubernetes gives it a second."""
    try:
        async with asyncio.timeout(_PATIENCE):
            await check()
    except Unavailable as exc:
        return exc.reason
    except TimeoutError:
        return "no answer in time"
    return None


def _answer(status: int, body: dict[str, object]) -> Response:
    return Response(json.dumps(body), status, {"Retry-After": "1"} if status == 503 else None, "application/json")
