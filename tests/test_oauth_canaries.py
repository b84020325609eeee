"""No secret, token or input of the OAuth endpoints in a log line, a metric, a refusal or the audit log."""

import asyncio
import secrets
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx2

from auth_service.settings import Settings
from tests.support.oauth import PUBLIC, added_client, oauth_error
from tests.support.processes import served
from tests.support.service import PASSWORD
from tests.support.tokens import base64url, claims_of

_PATHS = ("/oauth/token", "/oauth/revoke", "/oauth/introspect")


def test_nothing_that_was_sent_comes_out_elsewhere(settings: Callable[..., Settings], tmp_path: Path) -> None:
    forbidden: dict[str, str] = {}

    def canary(what: str) -> str:
        text = f"kanarie{secrets.token_hex(8)}"
        forbidden[text] = what
        return text

    def token(text: str, what: str) -> str:
        forbidden.update(dict.fromkeys([*text.split("."), claims_of(text)["jti"]], what))
        return text

    made = settings(log_level="debug", revocation_feed="client")
    client = added_client(made, "billing", "--scope", "orders:read", "--scope", "auth:introspect")
    forbidden[client.client_secret] = "the secret"
    refusals: list[httpx2.Response] = []
    with served(made, tmp_path) as [process], httpx2.Client(base_url=process.url, timeout=10) as http:

        def post(path: str, **request: Any) -> httpx2.Response:
            answer = http.post(path, **request)
            if answer.status_code >= 400:
                refusals.append(answer)
            return answer

        account = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}
        user = http.post("/user/register", json=account).json()
        tokens = [token(user["access_token"], "an access token"), token(user["refresh_token"], "a refresh token")]
        grant = {"grant_type": "client_credentials"}
        for form in ({}, {"scope": "orders:read"}):
            answer = post("/oauth/token", data={**grant, **form}, auth=client.basic)
            tokens.append(token(answer.json()["access_token"], "a service token"))
        for text in (*tokens, canary("a token"), f"{canary('a head')}.{canary('a body')}.{canary('a signature')}"):
            post("/oauth/introspect", data={"token": text}, auth=client.basic)
            post("/oauth/revoke", data={"token": text, "token_type_hint": canary("a hint")}, auth=client.basic)
            post("/oauth/revoke", data={"token": text, **PUBLIC})
            post("/oauth/token", data={"grant_type": "refresh_token", "refresh_token": text, **PUBLIC})
            http.get("/revocations", headers={"Authorization": f"Bearer {text}"})
        for path in _PATHS:
            post(path, data={"token": "x", "client_id": canary("a client id"), "client_secret": canary("a secret")})
            post(path, data={"token": "x", **grant}, auth=(client.client_id, canary("a wrong secret")))
            for name in ("grant_type", "scope", "audience", "resource", "refresh_token"):
                post(path, data={**grant, "token": "x", name: canary(name)}, auth=client.basic)
            post(path, data={canary("a field"): [canary("a value"), canary("another")]})
            post(path, content=canary("a body"), headers={"Content-Type": canary("a type")})
            post(
                path,
                content=canary("a large body") * 2000,
                headers={"Content-Type": "application/x-www-form-urlencoded"},
            )
            for pair in (canary("half a pair"), f"{canary('an id')}:{canary('a part')}%zz\r\n"):
                post(path, data=grant, headers={"Authorization": f"Basic {b64encode(pair.encode()).decode()}"})
                forbidden[base64url(pair.encode())] = "Basic credentials"
            post(path, data=grant, headers={"Authorization": canary("a scheme")})
        metrics = http.get(f"{process.internal_url}/metrics").text
    assert {oauth_error(answer) for answer in refusals} >= {
        (400, "invalid_request"), (401, "invalid_client"), (400, "invalid_grant"), (400, "invalid_scope"),
        (400, "invalid_target"), (400, "unsupported_grant_type"), (413, "invalid_request"), (415, "invalid_request"),
    }  # fmt: skip
    traces = {
        "the log": process.log.read_text("utf-8"),
        "the metrics": metrics,
        "the refusals": "".join(answer.text + repr(answer.headers.raw) for answer in refusals),
        "the audit log": asyncio.run(_audit_log(made)),
    }
    assert "token.revoked" in traces["the audit log"]
    found = [(what, where) for where, text in traces.items() for needle, what in forbidden.items() if needle in text]
    assert found == []


async def _audit_log(settings: Settings) -> str:
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        return str([tuple(row) for row in await connection.fetch("SELECT * FROM audit_events")])
    finally:
        await connection.close()
