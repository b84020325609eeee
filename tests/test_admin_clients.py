"""Clients and signing keys over the admin API: what each call does, tells and leaves in the audit log."""

from typing import Any

import pytest

from tests.support.admin import Admin, administrator, events
from tests.support.service import Service, problem
from tests.support.tokens import claims_of, header_of

_NEW = {"client_name": "billing", "scope": "invoices:read auth:admin", "audiences": ["orders"]}


@pytest.fixture
async def admin(service: Service) -> Admin:
    return await administrator(service)


async def _token(service: Service, client_id: str, secret: str, **form: str) -> Any:
    body = {"grant_type": "client_credentials", **form}
    return await service.http.post("/oauth/token", data=body, auth=(client_id, secret))


async def _added(admin: Admin, **members: Any) -> dict[str, Any]:
    answer = await admin.call("POST", "/clients", json={**_NEW, **members})
    assert answer.status_code == 201, answer.text
    client: dict[str, Any] = answer.json()
    return client


async def test_a_client_is_added_with_a_secret_that_works_and_is_told_once(service: Service, admin: Admin) -> None:
    client = await _added(admin)
    assert client["client_name"] == "billing"
    assert client["grant_types"] == ["client_credentials"]
    issued = await _token(service, client["client_id"], client["client_secret"])
    assert issued.status_code == 200
    assert claims_of(issued.json()["access_token"])["aud"] == "orders"
    [listed] = (await admin.call("GET", "/clients")).json()["items"]
    assert listed == {name: value for name, value in client.items() if name != "client_secret"}
    [event] = await events(service, "client.added")
    assert (event["actor_id"], event["target_id"]) == (admin.user.id, client["client_id"])
    assert client["client_secret"] not in str(dict(event))


async def test_a_client_with_the_admin_scope_administers_with_a_token_that_asks_for_it(
    service: Service, admin: Admin
) -> None:
    client = await _added(admin)
    for scope, status in (("invoices:read", 401), ("auth:admin", 200)):
        issued = await _token(service, client["client_id"], client["client_secret"], scope=scope)
        headers = {"Authorization": f"Bearer {issued.json()['access_token']}"}
        assert (await service.internal.get("/admin/clients", headers=headers)).status_code == status


async def test_a_new_secret_replaces_the_old_one_after_the_overlap(service: Service, admin: Admin) -> None:
    client = await _added(admin)
    path = f"/clients/{client['client_id']}/secret"
    renewed = (await admin.call("POST", path, json={"overlap": 60})).json()
    for secret in (client["client_secret"], renewed["client_secret"]):
        assert (await _token(service, client["client_id"], secret)).status_code == 200
    service.advance(seconds=61)
    assert (await _token(service, client["client_id"], client["client_secret"])).status_code == 401
    assert (await _token(service, client["client_id"], renewed["client_secret"])).status_code == 200
    at_once = (await admin.call("POST", path, json={"overlap": 0})).json()
    assert (await _token(service, client["client_id"], renewed["client_secret"])).status_code == 401
    assert (await _token(service, client["client_id"], at_once["client_secret"])).status_code == 200
    assert len(await events(service, "client.secret_rotated")) == 2


async def test_a_removed_client_gets_nothing_and_its_tokens_are_journaled(service: Service, admin: Admin) -> None:
    client = await _added(admin)
    path = f"/clients/{client['client_id']}"
    assert (await admin.call("DELETE", path)).status_code == 204
    assert problem(await admin.call("DELETE", path)) == (404, "not_found")
    assert (await _token(service, client["client_id"], client["client_secret"])).status_code == 401
    [row] = await service.sql("SELECT kind, claim FROM revocations WHERE kind = 'c'")
    assert row["claim"] == client["client_id"]
    assert len(await events(service, "client.removed")) == 1


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"client_name": ""}, "client_name"),
        ({"client_name": "a b"}, "client_name"),
        ({"scope": 'quo"te'}, "scope"),
        ({"grant_types": ["password"]}, "grant_types"),
        ({"audiences": ["two words"]}, "audiences"),
        ({"audiences": [""]}, "audiences"),
    ],
)
async def test_what_no_client_can_be_is_refused_by_name(
    service: Service, admin: Admin, members: dict[str, Any], field: str
) -> None:
    answer = await admin.call("POST", "/clients", json={**_NEW, **members})
    assert problem(answer) == (400, "invalid_request")
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert await service.sql("SELECT 1 FROM clients") == []


async def test_a_name_is_given_once(service: Service, admin: Admin) -> None:
    await _added(admin)
    assert problem(await admin.call("POST", "/clients", json=_NEW)) == (409, "client_name_taken")


async def test_clients_are_listed_page_by_page(admin: Admin) -> None:
    for number in range(5):
        await _added(admin, client_name=f"client-{number}")
    names = [client["client_name"] for client in await admin.pages("/clients", limit=2)]
    assert names == [f"client-{number}" for number in range(5)]


async def test_keys_are_listed_and_rotated(service: Service, admin: Admin) -> None:
    listed = (await admin.call("GET", "/keys")).json()
    assert [key["state"] for key in listed["items"]] == ["signing", "standby"]
    assert listed["next"] is None
    standby = listed["items"][1]
    switch = (await admin.call("POST", "/keys/rotate")).json()
    assert switch["kid"] == standby["kid"]
    assert switch["signs_from"] < standby["signs_from"]
    [event] = await events(service, "key.rotated")
    assert (event["actor_id"], event["target_id"]) == (admin.user.id, standby["kid"])


async def test_a_revoked_key_signs_no_more_and_what_it_signed_opens_nothing(service: Service, admin: Admin) -> None:
    kid = header_of(admin.user.access_token)["kid"]
    assert problem(await admin.call("DELETE", "/keys/unknown")) == (404, "not_found")
    assert (await admin.call("DELETE", f"/keys/{kid}")).status_code == 204
    service.app.key_follower.hold(await service.app.parts.key_store.load())
    assert problem(await admin.call("GET", "/keys")) == (401, "invalid_token")
    again = Admin(await service.login(admin.user, scope="auth:admin"), service)
    assert header_of(again.user.access_token)["kid"] != kid
    states = {key["kid"]: key["state"] for key in (await again.call("GET", "/keys")).json()["items"]}
    assert states[kid] == "revoked"
    assert sorted(states.values()) == ["revoked", "signing", "standby"]
    [row] = await service.sql("SELECT claim FROM revocations WHERE kind = 'k'")
    assert row["claim"] == kid
