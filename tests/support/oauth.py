"""The OAuth endpoints as a client uses them, and how their refusals look."""

import json
import re
import secrets
from dataclasses import dataclass
from typing import Any

import httpx2

from auth_service.accounts.clients import GRANT_TYPES, GrantType, Registration
from auth_service.audit import OPERATOR
from auth_service.settings import Settings
from tests.support.command import command
from tests.support.service import Service


@dataclass(frozen=True, slots=True)
class Credentials:
    """A client's id and secret."""

    client_id: str
    client_secret: str

    @property
    def basic(self) -> tuple[str, str]:
        return self.client_id, self.client_secret

    @property
    def post(self) -> dict[str, str]:
        return {"client_id": self.client_id, "client_secret": self.client_secret}


def added_client(settings: Settings, name: str, *options: str) -> Credentials:
    """A client added by the command line: for a service in a process of its own."""
    done = command("clients", "add", name, *options, "--json", settings=settings)
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    return Credentials(facts["client_id"], facts["client_secret"])


PUBLIC = {"client_id": "web"}
"""How the first-party client names itself."""


async def new_client(
    service: Service, *, scope: str = "", audiences: tuple[str, ...] = (), grants: tuple[GrantType, ...] = GRANT_TYPES
) -> Credentials:
    """A client that may have these scopes and audiences."""
    registration = Registration(f"client-{secrets.token_hex(4)}", grants, frozenset(scope.split()), audiences)
    client, secret = await service.app.parts.clients.add(registration, by=OPERATOR)
    return Credentials(str(client.id), secret)


async def ask_token(service: Service, credentials: Credentials, **form: Any) -> httpx2.Response:
    """The answer to a request for a token, by `client_credentials` unless `form` says otherwise."""
    data = {"grant_type": "client_credentials", **form}
    return await service.http.post("/oauth/token", data=data, auth=credentials.basic)


async def service_token(service: Service, credentials: Credentials, **form: Any) -> str:
    answer = await ask_token(service, credentials, **form)
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["access_token"]
    return token


async def revoke(
    service: Service, token: str, *, by: Credentials | None = None, hint: str | None = None
) -> httpx2.Response:
    """`by` None: the first-party client."""
    form = {"token": token, **({"token_type_hint": hint} if hint else {})}
    if by is None:
        return await service.http.post("/oauth/revoke", data={**form, **PUBLIC})
    return await service.http.post("/oauth/revoke", data=form, auth=by.basic)


async def introspected(service: Service, token: str, *, by: Credentials, **form: str) -> dict[str, Any]:
    """What introspection answers of `token`."""
    answer = await service.http.post("/oauth/introspect", data={"token": token, **form}, auth=by.basic)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    members: dict[str, Any] = answer.json()
    return members


def oauth_error(answer: httpx2.Response) -> tuple[int, str]:
    """Status and code of a refusal, which must be as RFC 6749 §5.2 says."""
    assert answer.headers["content-type"] == "application/json", answer.text
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body.keys() == {"error", "error_description"}
    assert re.fullmatch(r"[\x20-\x21\x23-\x5b\x5d-\x7e]+", body["error_description"])  # RFC 6749 §5.2
    if answer.status_code == 401:
        assert answer.headers["www-authenticate"].startswith("Basic realm=")
    if answer.status_code == 503:
        assert int(answer.headers["retry-after"]) >= 1
    error: str = body["error"]
    return answer.status_code, error
