"""The JWKS and the metadata: what other services find us by."""

from tests.support.service import Service, problem


async def test_the_jwks_holds_only_public_members_and_may_be_kept(service: Service) -> None:
    answer = await service.http.get("/.well-known/jwks.json")
    assert answer.headers["cache-control"] == "public, max-age=300"
    keys = answer.json()["keys"]
    assert len(keys) == 2, "the one that signs, and the one that will"
    for key in keys:
        assert key.keys() == {"kty", "n", "e", "kid", "alg", "use"}
        assert (key["kty"], key["alg"], key["use"], key["e"]) == ("RSA", "RS256", "sig", "AQAB")


async def test_an_unchanged_jwks_is_not_sent_again(service: Service) -> None:
    etag = (await service.http.get("/.well-known/jwks.json")).headers["etag"]
    for condition in (etag, f'"other", W/{etag}', "*"):
        answer = await service.http.get("/.well-known/jwks.json", headers={"If-None-Match": condition})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    changed = await service.http.get("/.well-known/jwks.json", headers={"If-None-Match": '"other"'})
    assert changed.status_code == 200


async def test_both_metadata_documents_name_the_issuer_byte_for_byte(service: Service) -> None:
    documents = [
        (await service.http.get(f"/.well-known/{name}")).json()
        for name in ("oauth-authorization-server", "openid-configuration")
    ]
    assert documents[0] == documents[1]
    assert documents[0]["issuer"] == service.settings.issuer
    assert documents[0]["response_types_supported"] == []


async def test_every_advertised_address_answers(service: Service) -> None:
    document = (await service.http.get("/.well-known/oauth-authorization-server")).json()
    addresses = [value for value in document.values() if isinstance(value, str) and value != document["issuer"]]
    assert len(addresses) >= 2
    for address in addresses:
        assert address.startswith(service.settings.issuer + "/")
        # What is only ever sent to answers a question with 405.
        wanted = 405 if "/oauth/" in address else 200
        assert (await service.http.get(address)).status_code == wanted


async def test_a_hostile_host_changes_no_address(service: Service) -> None:
    plain = await service.http.get("/.well-known/oauth-authorization-server")
    for headers in ({"Host": "evil.example"}, {"X-Forwarded-Host": "evil.example"}, {"Host": "x/../user/me"}):
        answer = await service.http.get("/.well-known/oauth-authorization-server", headers=headers)
        assert answer.content == plain.content


async def test_unknown_paths_and_methods_are_problems_too(service: Service) -> None:
    for path in ("/", "/nowhere", "/user", "/user/me/x", "/metrics", "/healthz", "/admin/users"):
        assert problem(await service.http.get(path)) == (404, "not_found")
    answer = await service.http.put("/user/me")
    assert problem(answer) == (405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "PATCH"}
    assert problem(await service.http.request("BREW", "/user/login")) == (405, "method_not_allowed")


async def test_every_answer_carries_the_security_headers_and_a_request_id(service: Service) -> None:
    for answer in (
        await service.http.get("/.well-known/jwks.json"),
        await service.http.get("/nowhere"),
        await service.http.post("/user/login", json={}),
        await service.http.post("/oauth/token"),
        await service.http.get("/docs"),
        await service.http.get("/docs/page.js"),
        await service.http.options("/user/login", headers={"Origin": "null", "Access-Control-Request-Method": "POST"}),
        await service.internal.get("/metrics"),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert policy.endswith("; frame-ancestors 'none'")
        assert "unsafe" not in policy
        assert answer.headers["cache-control"]
        assert answer.headers["strict-transport-security"].startswith("max-age=")
        assert answer.headers["x-request-id"]
    echoed = await service.http.get("/nowhere", headers={"X-Request-ID": "abc-123"})
    assert echoed.headers["x-request-id"] == "abc-123"
    replaced = await service.http.get("/nowhere", headers={"X-Request-ID": 'a"b c'})
    assert replaced.headers["x-request-id"] != 'a"b c'
