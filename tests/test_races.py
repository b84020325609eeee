"""Many callers with one refresh token at the same moment, against two processes on real sockets."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from auth_service.settings import Settings
from tests.support.load import Connection
from tests.support.processes import served
from tests.support.service import PASSWORD
from tests.support.tokens import generation_of

_CALLERS = 64
_RACES = 500 if "TEST_CAMPAIGN" in os.environ else 200


async def test_64_callers_with_one_token_get_one_successor_each_time(
    settings: Callable[..., Settings], tmp_path: Path
) -> None:
    offset_file = tmp_path / "offset"
    offset_file.write_text("0")
    with served(settings(), tmp_path, count=2, offset_file=offset_file) as processes:
        connections = [await Connection.open(processes[n % 2].port) for n in range(_CALLERS)]
        status, body = await connections[0].post(
            "/user/register", {"username": "racer", "email": "racer@example.com", "password": PASSWORD}
        )
        assert status == 201, body
        refresh_token = body["refresh_token"]
        for race in range(1, _RACES + 1):
            # The window of the race before has passed, so this one rotates.
            offset_file.write_text(str(race * 31))
            answers = await asyncio.gather(
                *(
                    connection.post("/user/refresh-token", {"refresh_token": refresh_token})
                    for connection in connections
                )
            )
            assert {status for status, _ in answers} == {200}, answers
            assert {generation_of(body["refresh_token"]) for _, body in answers} == {race + 1}
            refresh_token = answers[race % _CALLERS][1]["refresh_token"]
        for connection in connections:
            await connection.close()
