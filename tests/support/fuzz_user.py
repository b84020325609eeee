"""Who schemathesis signs in as: a new account whenever the last one has lost its session or its password.

Loaded by schemathesis itself, in a process of its own, as its module of hooks (`tests/test_openapi.py`).
"""

import itertools
import os
from base64 import b64encode
from typing import Any

import httpx2
import schemathesis

SERVICE_VARIABLE = "FUZZED_SERVICE"
"""Names the environment variable that holds the service's address."""

CLIENT_VARIABLE = "FUZZING_CLIENT"
"""Names the environment variable that holds the id and the secret of a service client, with a colon between."""

_numbers = itertools.count(1)


@schemathesis.auth(retry_on=[401])
class FuzzUser:
    """Its password is the one in the document's examples, so that generated bodies can change the account."""

    def get(self, _case: Any, _context: Any) -> str:
        name = f"fuzz{next(_numbers)}"
        answer = httpx2.post(
            f"{os.environ[SERVICE_VARIABLE]}/user/register",
            json={"username": name, "email": f"{name}@example.com", "password": "correct horse battery staple"},
        )
        answer.raise_for_status()
        access_token: str = answer.json()["access_token"]
        return access_token

    def set(self, case: Any, data: str, _context: Any) -> None:
        if case.path.startswith("/oauth/"):
            credentials = b64encode(os.environ[CLIENT_VARIABLE].encode()).decode()
            case.headers["Authorization"] = f"Basic {credentials}"
        else:
            case.headers["Authorization"] = f"Bearer {data}"
