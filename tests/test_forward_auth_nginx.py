"""Forward authentication with a real nginx: the configuration under `deploy/nginx` as it stands, with other ports."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest
import uvicorn

from auth_service.devstack.process import free_port
from auth_service.verifier.testing import FakeIssuer
from gateway_example.app import create_app
from tests.support.nginx import FRONT, needs_nginx, nginx

pytestmark = needs_nginx


class _Protected(BaseHTTPRequestHandler):
    """A service that knows nothing of tokens: it answers with the headers that reached it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = "\n".join(f"{name.lower()}: {value}" for name, value in self.headers.items()).encode()
        status = 500 if self.path.endswith("/fault") else 200
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        return


@contextmanager
def _gateway(issuer: FakeIssuer, port: int) -> Iterator[None]:
    config = uvicorn.Config(create_app(issuer.verifier()), port=port, log_level="warning", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(10)


@contextmanager
def _protected(port: int) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", port), _Protected) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield
        finally:
            server.shutdown()


@pytest.fixture(scope="module")
def issuer() -> FakeIssuer:
    return FakeIssuer(audience="gateway")


@pytest.fixture(scope="module")
def client(issuer: FakeIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """A client of nginx, with the gateway and the protected service behind it."""
    ports = {stands: free_port() for stands in (FRONT, 8001, 8002)}
    folder = tmp_path_factory.mktemp("nginx")
    folder.chmod(0o755)
    with ExitStack() as stack:
        stack.enter_context(_gateway(issuer, ports[8001]))
        stack.enter_context(_protected(ports[8002]))
        stack.enter_context(nginx("forward-auth.conf", folder, ports))
        yield stack.enter_context(httpx2.Client(base_url=f"http://127.0.0.1:{ports[FRONT]}"))


def test_a_good_token_reaches_the_service_as_headers_that_say_who_it_is(
    client: httpx2.Client, issuer: FakeIssuer
) -> None:
    answer = client.get("/", headers=issuer.headers(sub="u1", username="Zoë", scope="profile orders:read", sid="s1"))
    assert answer.status_code == 200
    lines = answer.text.splitlines()
    assert {"x-auth-subject: u1", "x-auth-username: Zo%C3%AB", "x-auth-session: s1", "x-auth-client: web"} <= set(lines)
    assert "x-auth-scope: profile orders:read" in lines
    assert not [line for line in lines if line.startswith("authorization:")], "the token goes no further"


def test_headers_that_a_visitor_makes_up_never_reach_the_service(client: httpx2.Client, issuer: FakeIssuer) -> None:
    made_up = {"X-Auth-Subject": "root", "X-Auth-Scope": "auth:admin", "X-Auth-Username": "root", "X-Auth-Session": "x"}
    answer = client.get("/", headers={**issuer.headers(sub="client-1", sid=None, client_id="client-1"), **made_up})
    assert answer.status_code == 200
    assert "root" not in answer.text
    assert "auth:admin" not in answer.text
    assert "x-auth-session" not in answer.text


def test_without_a_token_there_is_a_challenge(client: httpx2.Client) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="gateway"')


def test_a_bad_token_is_refused(client: httpx2.Client) -> None:
    answer = client.get("/", headers={"Authorization": "Bearer a.b.c"})
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_a_location_can_demand_a_scope(client: httpx2.Client, issuer: FakeIssuer) -> None:
    lacking = client.get("/reports/", headers=issuer.headers(scope="profile"))
    assert lacking.status_code == 403
    assert 'error="insufficient_scope"' in lacking.headers["www-authenticate"]
    assert 'scope="reports:read"' in lacking.headers["www-authenticate"]
    assert client.get("/reports/", headers=issuer.headers(scope="profile reports:read")).status_code == 200


def test_two_tokens_are_a_bad_request(client: httpx2.Client, issuer: FakeIssuer) -> None:
    headers = [("Authorization", issuer.headers()["Authorization"])] * 2
    assert client.get("/", headers=headers).status_code == 400


def test_a_revoked_session_is_refused(client: httpx2.Client, issuer: FakeIssuer) -> None:
    headers = issuer.headers(sid="revoked")
    assert client.get("/", headers=headers).status_code == 200
    issuer.revoke(sid="revoked")
    assert client.get("/", headers=headers).status_code == 401


def test_a_fault_of_the_service_is_not_taken_for_one_of_the_gateway(client: httpx2.Client, issuer: FakeIssuer) -> None:
    answer = client.get("/fault", headers=issuer.headers(sub="u2"))
    assert answer.status_code == 500
    assert "x-auth-subject: u2" in answer.text


def test_when_it_cannot_be_said_the_answer_is_503(client: httpx2.Client, issuer: FakeIssuer) -> None:
    headers = issuer.headers(expires_in=3600)
    with issuer.outage():
        issuer.advance(601)
        answer = client.get("/", headers=headers)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert client.get("/", headers=headers).status_code == 200
