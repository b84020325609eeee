"""`/api/live`: a WebSocket that ticks once a second. The middleware closes it when its token is no longer good."""

import asyncio
import itertools
from contextlib import suppress
from datetime import UTC, datetime

from starlette.websockets import WebSocket, WebSocketDisconnect

from auth_service.verifier import requires


@requires()
async def live(websocket: WebSocket) -> None:
    await websocket.accept()
    with suppress(WebSocketDisconnect):
        for tick in itertools.count(1):
            await websocket.send_json({"tick": tick, "at": datetime.now(UTC).isoformat(timespec="milliseconds")})
            await asyncio.sleep(1)
