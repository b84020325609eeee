"""The OpenAPI document: valid, complete, true of what the service answers; and the page that shows it.

Whether it is true is found out by schemathesis, which makes requests out of it and compares the answers with it.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
from starlette.routing import Route

from auth_service.settings import Settings
from tests.support.command import command
from tests.support.fuzz_user import CLIENT_VARIABLE, SERVICE_VARIABLE
from tests.support.oauth import new_client
from tests.support.processes import ServedProcess, served
from tests.support.service import Service

_METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})

_CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
    "use_after_free",
)

# Schemathesis counts 413 as no rejection, but to a string far over its `maxLength` it is one.
_CONFIGURATION = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 409, 413, 415, 422]
"""

# These need an id or a token that an earlier answer gave; whether the run finds out how is left to its luck.
_NEEDS_LUCK = frozenset({("POST", "/user/refresh-token"), ("DELETE", "/user/sessions/{id}")})


@pytest.fixture
async def document(service: Service) -> dict[str, Any]:
    answer = await service.http.get("/openapi.json")
    assert answer.status_code == 200
    members: dict[str, Any] = answer.json()
    return members


def test_signed_in_schemathesis_finds_no_fault(settings: Callable[..., Settings], tmp_path: Path) -> None:
    with served(settings(), tmp_path) as [process]:
        added = command("clients", "add", "fuzz", "--scope", "orders:read", "--json", settings=settings())
        client = ":".join(json.loads(added.out)[name] for name in ("client_id", "client_secret"))
        phases = "examples,coverage,fuzzing,stateful"
        _fuzz(process, tmp_path, hooks="tests.support.fuzz_user", phases=phases, client=client)
        answered = _answered(process)
        succeeded = {(method, route) for method, route, status in answered if status < 300}
        described = {*_operations(httpx2.get(f"{process.url}/openapi.json").json())}
        assert described - _NEEDS_LUCK <= succeeded  # or the run has only compared refusals
        assert {status for *_, status in answered if status >= 500} == set()


def test_anonymous_schemathesis_finds_no_fault(settings: Callable[..., Settings], tmp_path: Path) -> None:
    with served(settings(), tmp_path) as [process]:
        _fuzz(process, tmp_path, hooks=None, phases="examples,coverage,fuzzing")
        answered = _answered(process)
        refused = {status for method, route, status in answered if (method, route) == ("GET", "/user/me")}
        assert {401} <= refused <= {400, 401}, "400: a header that holds not one access token"
        assert {status for *_, status in answered if status >= 500} == set()


async def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(document).validate()


async def test_every_reference_leads_somewhere_and_every_component_is_used(document: dict[str, Any]) -> None:
    references = {value for name, value in _members(document) if name == "$ref"}
    components = {
        f"#/components/{kind}/{name}" for kind in ("schemas", "responses") for name in document["components"][kind]
    }
    assert references == components
    schemes = {
        scheme for name, value in _members(document) if name == "security" for entry in value for scheme in entry
    }
    assert schemes == document["components"]["securitySchemes"].keys()


async def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for operation in _operations(document).values()]
    assert len(set(ids)) == len(ids)


async def test_the_document_describes_exactly_the_routes_that_exist(service: Service, document: dict[str, Any]) -> None:
    existing = {
        (method, route.path)
        for route in service.app.public.routes
        if isinstance(route, Route)
        for method in set(route.methods or ()) - {"HEAD"}
    }
    described = set(_operations(document))
    with_a_slash = {(method, f"{path}/") for method, path in described}
    of_the_page = {(method, path) for method, path in existing if path.startswith("/docs/")}
    assert existing - with_a_slash - of_the_page == described


async def test_the_admin_api_is_described_as_it_is(service: Service) -> None:
    document = (await service.internal.get("/openapi.json")).json()
    schemathesis.openapi.from_dict(document).validate()
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    existing = {
        (method, route.path)
        for route in service.app.internal.routes
        if isinstance(route, Route)
        for method in set(route.methods or ()) - {"HEAD"}
    }
    assert described == existing
    listing = document["paths"]["/admin/users"]["get"]
    assert {parameter["name"] for parameter in listing["parameters"]} == {"search", "limit", "cursor"}
    assert listing["security"] == [{"admin_bearer": []}]
    assert set(listing["responses"]) == {"200", "400", "401", "403", "503"}
    assert set(document["components"]["securitySchemes"]) == {"admin_bearer"}


async def test_a_body_member_that_may_be_left_out_is_not_described_as_null(document: dict[str, Any]) -> None:
    for operation in _operations(document).values():
        for media_type in operation.get("requestBody", {}).get("content", {}).values():
            name = media_type["schema"]["$ref"].rpartition("/")[2]
            assert "null" not in str(document["components"]["schemas"][name])


async def test_the_example_of_every_body_is_a_good_request(service: Service, document: dict[str, Any]) -> None:
    user = await service.register()
    client = await new_client(service, scope="orders:read")
    for (method, path), operation in _operations(document).items():
        if "requestBody" not in operation:
            continue
        [(media_type, content)] = operation["requestBody"]["content"].items()
        schema = document["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
        for example in schema.get("examples") or [_example_of_members(schema)]:
            if media_type == "application/json":
                answer = await service.http.request(method, path, json=example, headers=user.bearer)
            else:
                public = "client_id" in example
                answer = await service.http.request(method, path, data=example, auth=None if public else client.basic)
            assert answer.status_code not in (400, 415, 422), (path, answer.text)


async def test_the_example_of_every_refusal_has_its_status(document: dict[str, Any]) -> None:
    for (_method, path), operation in _operations(document).items():
        for status, response in operation["responses"].items():
            if int(status) < 400:
                continue
            refusal = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
            [(media_type, content)] = refusal["content"].items()
            code = content["example"].get("code") or content["example"]["error"]
            if path.startswith("/oauth/"):
                assert media_type == "application/json"
            else:
                assert media_type == "application/problem+json"
                assert content["example"]["status"] == int(status)
            assert f"`{code}`" in refusal["description"]


async def test_the_docs_page_loads_nothing_from_other_hosts(service: Service) -> None:
    answer = await service.http.get("/docs")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    page = _Links()
    page.feed(answer.text)
    assert page.links
    for link in page.links:
        assert link.startswith("data:") or re.match(r"/[^/]", link), link


async def test_the_docs_page_is_under_a_policy_that_lets_nothing_inline_run(service: Service) -> None:
    headers = (await service.http.get("/docs")).headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["referrer-policy"] == "no-referrer"
    page = (await service.http.get("/docs/")).text
    assert "style=" not in page
    assert not re.search(r"<script(?! src)|<style| on\w+=", page)


async def test_every_asset_of_the_docs_page_is_served(service: Service) -> None:
    page = _Links()
    page.feed((await service.http.get("/docs")).text)
    assets = [link for link in page.links if link.startswith("/")]
    assert {Path(asset).suffix for asset in assets} == {".css", ".js"}
    for asset in assets:
        answer = await service.http.get(asset)
        assert answer.status_code == 200, asset
        assert answer.content, asset
        kind = "text/css" if asset.endswith(".css") else "text/javascript"
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["x-content-type-options"] == "nosniff"
        if kind == "text/css":
            assert not re.search(r"""url\(\s*(?!["']?data:)|@import""", answer.text), asset


def _fuzz(process: ServedProcess, folder: Path, *, hooks: str | None, phases: str, client: str = "") -> None:
    """Let schemathesis compare the running service with its document. `client`: id and secret, with a colon between."""
    configuration = folder / "schemathesis.toml"
    configuration.write_text((f'hooks = "{hooks}"\n' if hooks else "") + _CONFIGURATION)
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(configuration)),
        *("run", f"{process.url}/openapi.json", "--url", process.url, "--no-color"),
        *("--checks", ",".join(_CHECKS), "--phases", phases, "--continue-on-failure"),
        *("--max-examples", "15", "--seed", "1", "--generation-database", "none", "--workers", "1"),
    ]
    finished = subprocess.run(
        command,
        env={**os.environ, SERVICE_VARIABLE: process.url, CLIENT_VARIABLE: client},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert re.search(r"[1-9]\d\d generated, [1-9]\d\d passed", finished.stdout), finished.stdout


def _answered(process: ServedProcess) -> set[tuple[str, str, int]]:
    """Method, route and status of every answer that the service has given, by its own count."""
    lines = httpx2.get(f"{process.internal_url}/metrics").text
    pattern = r'^auth_http_requests_total\{method="(.+)",route="(.+)",status="(\d+)"\} (\S+)$'
    found = re.findall(pattern, lines, flags=re.MULTILINE)
    return {(method, route, int(status)) for method, route, status, count in found if float(count)}


def _operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in _METHODS
    }


def _members(value: object) -> Iterator[tuple[str, Any]]:
    """Every member of every object in `value`."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield name, member
            yield from _members(member)
    elif isinstance(value, list):
        for item in value:
            yield from _members(item)


def _example_of_members(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: member["examples"][0] for name, member in schema["properties"].items()}


class _Links(HTMLParser):
    """Collects whatever a page names with `src` or `href`."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
