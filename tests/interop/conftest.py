"""The service on a real socket under its own name, with one service client and users to sign in."""

import itertools
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx2
import pytest

from auth_service.devstack.process import free_port
from tests.support.balancer import Balancer
from tests.support.oauth import Credentials, added_client
from tests.support.processes import served
from tests.support.service import PASSWORD, SignedIn, signed_in
from tests.support.stores import Stores


@dataclass(slots=True)
class Issuer:
    """Where it is, and who may ask it."""

    url: str
    client: Credentials
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def register(self) -> SignedIn:
        name = f"user{next(self._numbers)}-{secrets.token_hex(2)}"
        body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
        answer = httpx2.post(f"{self.url}/user/register", json=body)
        assert answer.status_code == 201, answer.text
        return signed_in(answer)

    @property
    def metadata_url(self) -> str:
        return f"{self.url}/.well-known/oauth-authorization-server"


@pytest.fixture(scope="package")
def issuer(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    port = free_port()
    settings = stores.settings(
        issuer=f"http://127.0.0.1:{port}", database_url=stores.new_database(), audiences="orders"
    )
    folder = tmp_path_factory.mktemp("interop")
    with served(settings, folder) as [process], Balancer([process.port], port=port):
        scopes = ("--scope", "orders:read", "--scope", "orders:write", "--scope", "auth:introspect")
        client = added_client(settings, "interop", *scopes, "--audience", "orders", "--audience", "stock")
        yield Issuer(settings.issuer, client)
