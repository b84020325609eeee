"""Service clients: adding, listing and removing them, their secrets, and what the audit log says of it all."""

import asyncio
import hashlib
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from auth_service.accounts.clients import Registration
from auth_service.audit import OPERATOR, Actor, Source
from auth_service.errors import InvalidClient, InvalidRequest, NotFound, Taken
from auth_service.settings import Settings
from auth_service.verifier.revocations import revocation_id
from tests.support.command import Outcome, command
from tests.support.oauth import Credentials, ask_token, new_client, oauth_error, service_token
from tests.support.service import Service
from tests.support.tokens import claims_of

Run = Callable[..., Outcome]


@pytest.fixture
def run(settings: Callable[..., Settings]) -> Run:
    """Runs a command in this process, on this test's database and Redis."""
    return lambda *arguments: command(*arguments, settings=settings())


def _json(done: Outcome) -> Any:
    assert done.code == 0, done.err
    return json.loads(done.out)


async def test_an_added_client_gets_tokens_with_the_secret_that_was_shown(run: Run, service: Service) -> None:
    options = ("--scope", "orders:read", "--scope", "auth:admin", "--audience", "stock", "--audience", "orders")
    facts = _json(await asyncio.to_thread(run, "clients", "add", "billing", *options, "--json"))
    assert facts.keys() == {
        "client_id", "client_secret", "client_name", "grant_types", "scope", "audiences", "created_at",
        "previous_secret_until",
    }  # fmt: skip
    assert facts["previous_secret_until"] is None
    assert (facts["client_name"], facts["grant_types"]) == ("billing", ["client_credentials"])
    assert (facts["scope"], facts["audiences"]) == ("auth:admin orders:read", ["stock", "orders"])
    token = await service_token(service, Credentials(facts["client_id"], facts["client_secret"]))
    claims = claims_of(token)
    assert (claims["sub"], claims["aud"], claims["scope"]) == (facts["client_id"], ["stock", "orders"], "orders:read")


async def test_the_secret_has_256_random_bits_and_is_kept_as_a_hash_alone(service: Service) -> None:
    one, other = await new_client(service), await new_client(service)
    assert one.client_secret != other.client_secret
    assert len(one.client_secret) == 43
    for row in await service.sql("SELECT * FROM clients WHERE id = $1", UUID(one.client_id)):
        assert bytes(row["secret_hash"]) == hashlib.sha256(one.client_secret.encode()).digest()
    for table in ("clients", "audit_events"):
        assert one.client_secret not in str([tuple(row) for row in await service.sql(f"SELECT * FROM {table}")])


def test_the_table_and_the_list_never_show_a_secret(run: Run) -> None:
    secrets = [_json(run("clients", "add", name, "--json"))["client_secret"] for name in ("b-client", "a-client")]
    listed = run("clients", "list")
    as_json = _json(run("clients", "list", "--json"))
    assert [client["client_name"] for client in as_json] == ["a-client", "b-client"]
    assert listed.out.index("a-client") < listed.out.index("b-client")
    assert not any(secret in listed.out + json.dumps(as_json) for secret in secrets)
    first = run("clients", "list", "--limit", "1")
    assert "--after a-client" in first.err
    assert [client["client_name"] for client in _json(run("clients", "list", "--after", "a-client", "--json"))] == [
        "b-client"
    ]
    shown = run("clients", "add", "c-client").out
    assert "client_secret" in shown
    assert "shown this once" in shown


def test_a_client_that_cannot_be_is_refused_with_the_reason(run: Run) -> None:
    _json(run("clients", "add", "billing", "--json"))
    again = run("clients", "add", "billing")
    assert (again.code, "another client has this name" in again.err) == (1, True)
    assert "`auth-service clients rotate-secret billing` gives it a new secret" in again.err
    for arguments, reason in (
        (("with space",), "client_name"),
        (("x" * 65,), "client_name"),
        (("x", "--scope", 'a"b'), "scope"),
        (("x", "--audience", "a b"), "audiences"),
        (("x", "--audience", ""), "audiences"),
        (("x", "--audience", "a" * 1025), "audiences"),
        (("x", "--grant", "password"), "grant"),
        (("x", "--grant", "client_credentials", "--no-grant"), "exclude"),
    ):
        refused = run("clients", "add", *arguments)
        assert refused.code == 2, arguments
        assert reason in refused.err
    for command_name in ("remove", "rotate-secret"):
        unknown = run("clients", command_name, str(uuid4()))
        assert unknown.code == 1
        assert "there is no client" in unknown.err
    assert run("clients", "rotate-secret", "billing", "--overlap", "-1").code == 2


def test_a_name_that_is_another_clients_id_is_not_taken_for_it(run: Run) -> None:
    first = _json(run("clients", "add", "first", "--json"))
    _json(run("clients", "add", first["client_id"], "--json"))
    _json(run("clients", "remove", first["client_id"], "--json"))
    assert [client["client_name"] for client in _json(run("clients", "list", "--json"))] == [first["client_id"]]


async def test_after_a_rotation_both_secrets_are_good_until_the_overlap_ends(run: Run, service: Service) -> None:
    old = await new_client(service, scope="orders:read")
    done = await asyncio.to_thread(run, "clients", "rotate-secret", old.client_id, "--overlap", "3600", "--json")
    facts = _json(done)
    new = Credentials(old.client_id, facts["client_secret"])
    [row] = await service.sql("SELECT previous_secret_until FROM clients WHERE id = $1", UUID(old.client_id))
    [listed] = _json(await asyncio.to_thread(run, "clients", "list", "--json"))
    for told in (facts, listed):
        assert datetime.fromisoformat(told["previous_secret_until"]) == row["previous_secret_until"]
    for credentials in (old, new):
        assert (await ask_token(service, credentials)).status_code == 200
    service.advance(seconds=3590)
    assert (await ask_token(service, old)).status_code == 200
    service.advance(seconds=11)
    assert oauth_error(await ask_token(service, old)) == (401, "invalid_client")
    assert (await ask_token(service, new)).status_code == 200


async def test_the_overlap_is_a_day_unless_said_otherwise_and_zero_ends_the_old_secret_at_once(
    service: Service,
) -> None:
    clients = service.app.parts.clients
    old = await new_client(service)
    client, second = await clients.rotate_secret(UUID(old.client_id), by=OPERATOR)
    assert client.previous_secret_until is not None
    service.advance(seconds=86_390)
    assert (await ask_token(service, old)).status_code == 200
    # A third secret: the first is not the one before it any more.
    client, third = await clients.rotate_secret(UUID(old.client_id), by=OPERATOR, overlap=timedelta(seconds=60))
    assert oauth_error(await ask_token(service, old)) == (401, "invalid_client")
    assert (await ask_token(service, Credentials(old.client_id, second))).status_code == 200
    client, fourth = await clients.rotate_secret(UUID(old.client_id), by=OPERATOR, overlap=timedelta(0))
    assert client.previous_secret_until is None
    [row] = await service.sql("SELECT previous_secret_hash FROM clients WHERE id = $1", client.id)
    assert row["previous_secret_hash"] is None
    for gone in (second, third):
        assert oauth_error(await ask_token(service, Credentials(old.client_id, gone))) == (401, "invalid_client")
    assert (await ask_token(service, Credentials(old.client_id, fourth))).status_code == 200
    for overlap in (timedelta(seconds=-1), timedelta(days=31)):
        with pytest.raises(InvalidRequest):
            await clients.rotate_secret(UUID(old.client_id), by=OPERATOR, overlap=overlap)


async def test_an_empty_secret_and_a_hash_of_zeros_open_nothing(service: Service) -> None:
    client = await new_client(service)
    for secret in ("", "\0" * 32, client.client_secret[:-1], client.client_secret + "\0", "\ud800"):
        with pytest.raises(InvalidClient):
            await service.app.parts.clients.authenticate(client.client_id, secret)
    for client_id in ("", "x", f"{{{client.client_id}}}", f"urn:uuid:{client.client_id}", client.client_id.upper()):
        with pytest.raises(InvalidClient):
            await service.app.parts.clients.authenticate(client_id, client.client_secret)


async def test_a_removal_is_journaled_with_the_row_and_told_to_every_verifier(service: Service) -> None:
    client = await new_client(service)
    await service.app.parts.clients.remove(UUID(client.client_id), by=OPERATOR)
    assert await service.sql("SELECT * FROM clients") == []
    [row] = await service.sql("SELECT kind, claim, reason FROM revocations")
    assert tuple(row) == ("c", client.client_id, "removed")
    told = {(kind, name) for kind, name, _ in service.app.parts.live_set.entries()}
    assert ("c", revocation_id(client.client_id)) in told
    with pytest.raises(NotFound):
        await service.app.parts.clients.remove(UUID(client.client_id), by=OPERATOR)
    assert len(await service.sql("SELECT * FROM revocations")) == 1


async def test_each_change_leaves_one_audit_event_and_a_refused_one_none(service: Service) -> None:
    clients = service.app.parts.clients
    admin = Actor("user", str(uuid4()), Source("203.0.113.7", "curl/8", "request-1"))
    client, _secret = await clients.add(Registration("billing", scope=frozenset({"orders:read"})), by=admin)
    await clients.rotate_secret(client.id, by=OPERATOR, overlap=timedelta(seconds=5))
    with pytest.raises(Taken):
        await clients.add(Registration("billing"), by=admin)
    await clients.remove(client.id, by=admin)
    for refused in (clients.remove(client.id, by=admin), clients.rotate_secret(client.id, by=admin)):
        with pytest.raises(NotFound):
            await refused
    rows = await service.sql("SELECT * FROM audit_events ORDER BY id")
    assert [(row["action"], row["actor_kind"], row["target_id"]) for row in rows] == [
        ("client.added", "user", str(client.id)),
        ("client.secret_rotated", "operator", str(client.id)),
        ("client.removed", "user", str(client.id)),
    ]
    assert (rows[0]["actor_id"], rows[0]["ip"], rows[0]["request_id"]) == (admin.id, "203.0.113.7", "request-1")
    assert json.loads(rows[1]["details"]) == {"overlap": 5}


async def test_clients_are_paged_by_name_whatever_comes_and_goes_meanwhile(service: Service) -> None:
    clients = service.app.parts.clients
    made = {}
    for name in ("a", "B", "c.1", "d_2", "e-3"):
        made[name] = (await clients.add(Registration(name), by=OPERATOR))[0]
    seen, after = [], ""
    while page := await clients.page(after=after, limit=2):
        seen += [client.name for client in page]
        after = page[-1].name
        if len(seen) == 2:
            await clients.remove(page[0].id, by=OPERATOR)
    assert sorted(seen) == sorted(made)
    assert len(seen) == len(set(seen))
    for hostile in ("'; DROP TABLE clients; --", "\0", "\\", "%"):
        await clients.page(after=hostile)
        with pytest.raises(NotFound):
            await clients.locate(hostile)
    with pytest.raises(NotFound):
        await clients.locate(str(uuid4()))
    assert await clients.locate(str(made["c.1"].id)) == made["c.1"] == await clients.locate("c.1")
