"""The OpenAPI 3.1 document, made from the operations and their models: nothing is described twice."""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from auth_service import __version__
from auth_service.edge.problems import MEDIA_TYPE
from auth_service.endpoints import refresh_cookie, schemas
from auth_service.endpoints.operation import Answer, Operation

_TEMPLATE = "#/components/schemas/{model}"

_PROBLEMS = {
    400: "The request is not well formed, or a field is wrong.",
    401: "The credentials are missing or not good.",
    403: "The cookie transport may not be used from there.",
    404: "There is no such thing.",
    409: "The user name or the e-mail address is taken.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "The password does not meet the rules.",
    503: "A store is away. Nothing was changed: try again.",
}

_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}},
    503: {"Retry-After": {"required": True, "description": "Seconds.", "schema": {"type": "integer"}}},
}


def openapi_document(operations: Iterable[Operation], *, issuer: str) -> dict[str, Any]:
    """The document for `operations`, as JSON-ready values."""
    operations = list(operations)
    models: list[type[BaseModel]] = [schemas.Problem]
    models += [operation.body for operation in operations if operation.body is not None]
    _refs, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template=_TEMPLATE, title=None
    )
    shared: dict[str, Any] = dict(definitions.get("$defs", {}))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, shared)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "auth-service",
            "version": __version__,
            "description": "Accounts, sessions and the tokens that prove them. Refusals are problem details (RFC 9457) "
            "with a stable `code`.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": issuer}],
        "paths": paths,
        "components": {
            "schemas": shared,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "at+jwt"},
                "refresh_cookie": {"type": "apiKey", "in": "cookie", "name": refresh_cookie.NAME},
            },
        },
    }


def _operation(operation: Operation, shared: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": re.sub(r"[^a-z]+", "_", f"{operation.method} {operation.path}".lower()).strip("_"),
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": {str(status): _answer(answer, shared) for status, answer in operation.answers.items()},
    }
    if operation.path_parameters:
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": schema}
            for name, schema in operation.path_parameters.items()
        ]
    problems = {*operation.problems, 503}
    if operation.body is not None:
        problems |= {400, 413, 415}
        reference = {"$ref": _TEMPLATE.format(model=operation.body.__name__)}
        described["requestBody"] = {
            "required": operation.body_required,
            "content": {"application/json": {"schema": reference}},
        }
    if "bearer" in operation.credentials:
        problems |= {400, 401}
    if operation.credentials:
        described["security"] = [{credential: []} for credential in operation.credentials]
        if operation.anonymous:
            described["security"].append({})
    for status in sorted(problems):
        described["responses"][str(status)] = _problem(status)
    return described


def _answer(answer: Answer, shared: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description}
    if answer.model is not None:
        schema = answer.model
        if not isinstance(schema, dict):
            schema = TypeAdapter(answer.model).json_schema(mode="serialization", ref_template=_TEMPLATE)
            for name, definition in schema.pop("$defs", {}).items():
                shared[name] = definition
            if "properties" in schema:
                shared[answer.model.__name__] = schema
                schema = {"$ref": _TEMPLATE.format(model=answer.model.__name__)}
        described["content"] = {answer.media_type: {"schema": schema}}
    return described


def _problem(status: int) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": _PROBLEMS.get(status, HTTPStatus(status).phrase),
        "content": {MEDIA_TYPE: {"schema": {"$ref": _TEMPLATE.format(model=schemas.Problem.__name__)}}},
    }
    if status in _HEADERS:
        described["headers"] = _HEADERS[status]
    return described
