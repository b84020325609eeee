"""The OpenAPI 3.1 document, made from the operations and their models: nothing is described twice."""

import json
import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from auth_service import __version__
from auth_service.edge.problems import MEDIA_TYPE, render
from auth_service.endpoints import refresh_cookie, schemas
from auth_service.endpoints.body import MAX_BYTES
from auth_service.endpoints.oauth_errors import OAUTH_REFUSALS, render_oauth
from auth_service.endpoints.oauth_schemas import OAuthError
from auth_service.endpoints.operation import Answer, Operation
from auth_service.errors import (
    InsufficientScope,
    InvalidBearer,
    InvalidRequest,
    NotFound,
    OriginRefused,
    OwnAccount,
    PayloadTooLarge,
    ServiceError,
    Taken,
    TooManyAttempts,
    Unavailable,
    UnsupportedMediaType,
    WeakPassword,
)

_SCHEMA = "#/components/schemas/{model}"
_RESPONSE = "#/components/responses/{name}"

_DESCRIPTION = """Accounts, sessions and the tokens that prove them.

Refusals are problem details (RFC 9457) with a stable `code`; `errors` names the fields that are wrong. Every answer
carries `X-Request-ID`: the id sent with the request, or a new one. The log knows the request by it."""

_TAGS = {
    "Users": "Accounts, as an administrator keeps them.",
    "Clients": "Services with tokens of their own.",
    "Keys": "The signing keys, which rotate by themselves.",
    "Audit": "Who did what, to what, and from where.",
    "Health": "Is this process alive, and may it be sent traffic?",
    "Metrics": "Numbers for Prometheus.",
    "Accounts": "Who somebody is: making an account and changing one's own.",
    "Sessions": "Signing in, staying signed in, and ending it.",
    "OAuth": "The standard endpoints: tokens for services, revocation, introspection.",
    "Discovery": "What a verifier needs to know of this issuer.",
    "Documentation": "This interface, for programs and for people.",
}

# Status: the name of the component, what it means, and a refusal that shows it.
_PROBLEMS: dict[int, tuple[str, str, ServiceError]] = {
    400: (
        "InvalidRequest",
        "`invalid_request`: the request is not well formed, or a field is wrong.",
        InvalidRequest("These fields are wrong: email.", fields=(("email", "must be an e-mail address"),)),
    ),
    401: (
        "Unauthorized",
        "The credentials are missing or not good. `invalid_credentials`: the name or the password; `invalid_token`: "
        "the access or the refresh token; `refresh_token_expired`, `refresh_token_reused`, `refresh_token_revoked`: "
        "sign in again.",
        InvalidBearer("an example"),
    ),
    403: (
        "OriginRefused",
        "The cookie transport may not be used from there: `origin_not_allowed` or `cookie_needs_same_site`; or "
        "`insufficient_scope`: the access token does not allow this.",
        OriginRefused("origin_not_allowed"),
    ),
    404: ("NotFound", "`not_found`: there is no such thing, or it is somebody else's.", NotFound()),
    409: ("Taken", "`email_taken` or `username_taken`: another account has it.", Taken("email")),
    413: ("PayloadTooLarge", "`payload_too_large`: the body is over the limit.", PayloadTooLarge(MAX_BYTES)),
    415: ("UnsupportedMediaType", "`unsupported_media_type`: the body is not JSON.", UnsupportedMediaType()),
    422: (
        "WeakPassword",
        "`weak_password`: the new password does not meet the rules; `detail` says which one.",
        WeakPassword("The password needs at least 12 characters.", field="password"),
    ),
    429: (
        "TooManyAttempts",
        "`too_many_attempts`: this client has had more than its share.",
        TooManyAttempts("an example", retry_after=30),
    ),
    503: (
        "Unavailable",
        "`unavailable`: a store is away or too busy. No token was spent: try again.",
        Unavailable("an example"),
    ),
}

# What the operations of an administrator refuse for other reasons.
_ADMIN_PROBLEMS: dict[int, tuple[str, str, ServiceError]] = {
    403: (
        "InsufficientScope",
        "`insufficient_scope`: the access token lacks `auth:admin`, or its bearer does not hold that any more.",
        InsufficientScope("auth:admin", "an example"),
    ),
    409: (
        "Conflict",
        "`email_taken`, `username_taken`, `client_name_taken`: another has it. `own_account`: you would lock yourself "
        "out.",
        OwnAccount(),
    ),
}

# What the revocation feed refuses for other reasons, where it is for clients alone.
_FEED_PROBLEMS: dict[int, tuple[str, str, ServiceError]] = {
    403: (
        "InsufficientScope",
        "`insufficient_scope`: the access token lacks `revocations:read`, or its client does not hold that any more.",
        InsufficientScope("revocations:read", "an example"),
    ),
}

_RETRY_AFTER: dict[str, Any] = {
    "Retry-After": {"required": True, "description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}
}

_HEADERS: dict[int, dict[str, Any]] = {
    401: {
        "WWW-Authenticate": {
            "required": True,
            "description": "Bearer (RFC 6750 §3), or Basic (RFC 7617) for a client.",
            "schema": {"type": "string"},
        }
    },
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
}


_SECURITY_SCHEMES: dict[str, dict[str, str]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "at+jwt",
        "description": "The access token of a first-party session.",
    },
    "admin_bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "at+jwt",
        "description": "An access token with the scope `auth:admin`, which a login gives only when it asks for it, and "
        "whose `aud` is this issuer alone.",
    },
    "client_bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "at+jwt",
        "description": "A client's own access token with the scope `revocations:read`, for which it has to ask.",
    },
    "client": {
        "type": "http",
        "scheme": "basic",
        "description": "`client_secret_basic`: a client's id and secret (RFC 6749 §2.3.1). Both may be in the form "
        "instead (`client_secret_post`).",
    },
    "refresh_cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": refresh_cookie.NAME,
        "description": "The refresh token of a session whose transport is the cookie. The request needs an allowed "
        "`Origin`.",
    },
}


def openapi_document(operations: Iterable[Operation], *, server: str) -> dict[str, Any]:
    """The document for `operations`, which are found at `server`, as JSON-ready values."""
    operations = list(operations)
    models = _Models(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, models)
    used = {
        name: _problem(description, refusal, models, oauth=operation.oauth_errors)
        for operation in operations
        for name, description, refusal in _refusals(operation).values()
    }
    schemes = {credential for operation in operations for credential in operation.credentials}
    tags = {operation.tag for operation in operations}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "auth-service",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": server}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items() if name in tags],
        "paths": paths,
        "components": {
            "schemas": models.components,
            "responses": dict(sorted(used.items())),
            "securitySchemes": {name: scheme for name, scheme in _SECURITY_SCHEMES.items() if name in schemes},
        },
    }


def _operation(operation: Operation, models: "_Models") -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": re.sub(r"[^a-z]+", "_", f"{operation.method} {operation.path}".lower()).strip("_"),
        "summary": operation.summary,
        "tags": [operation.tag],
    }
    if operation.credentials:
        described["security"] = [{credential: []} for credential in operation.credentials]
        if operation.anonymous:
            described["security"].append({})
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name, schema in operation.path_parameters.items()
    ]
    if operation.query is not None:
        properties = operation.query.model_json_schema(schema_generator=_Schema)["properties"]
        parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in properties.items()]
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {
            "required": operation.body_required,
            "content": {operation.body_media_type: {"schema": models.schema(operation.body, "validation")}},
        }
    described["responses"] = {
        **{str(status): _answer(answer, models) for status, answer in operation.answers.items()},
        **{
            str(status): {"$ref": _RESPONSE.format(name=name)}
            for status, (name, *_) in sorted(_refusals(operation).items())
        },
    }
    return described


def _refusals(operation: Operation) -> dict[int, tuple[str, str, ServiceError]]:
    table = OAUTH_REFUSALS if operation.oauth_errors else _PROBLEMS
    if "admin_bearer" in operation.credentials:
        table = table | _ADMIN_PROBLEMS
    if "client_bearer" in operation.credentials:
        table = table | _FEED_PROBLEMS
    return {status: table[status] for status in _problem_statuses(operation)}


def _problem_statuses(operation: Operation) -> set[int]:
    statuses = set(operation.problems)
    if operation.body is not None or operation.credentials:
        statuses.add(503)
    if operation.body is not None:
        statuses |= {400, 413, 415}
    if "bearer" in operation.credentials:
        statuses |= {400, 401}
    if "admin_bearer" in operation.credentials:
        statuses |= {400, 401, 403}
    return statuses


def _answer(answer: Answer, models: "_Models") -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description}
    if answer.headers:
        described["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in answer.headers
        }
    if answer.model is not None:
        schema = answer.model if isinstance(answer.model, dict) else models.schema(answer.model, "serialization")
        described["content"] = {answer.media_type: {"schema": schema}}
        if answer.streamed_as is not None:
            described["content"][answer.streamed_as] = {"schema": {"type": "string"}}
    return described


def _problem(description: str, refusal: ServiceError, models: "_Models", *, oauth: bool) -> dict[str, Any]:
    described: dict[str, Any] = {"description": description}
    if refusal.status in _HEADERS:
        described["headers"] = _HEADERS[refusal.status]
    model: type[BaseModel]
    media_type, model, example = MEDIA_TYPE, schemas.Problem, render(refusal)
    if oauth:
        media_type, model, example = "application/json", OAuthError, render_oauth(refusal)
    schema = models.schema(model, "serialization")
    described["content"] = {media_type: {"schema": schema, "example": json.loads(bytes(example.body))}}
    return described


class _Models:
    """The JSON Schema of every model that the operations read or write, each described once, under its own name."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        wanted: list[tuple[Any, Any]] = [(schemas.Problem, "serialization")]
        if any(operation.oauth_errors for operation in operations):
            wanted.append((OAuthError, "serialization"))
        for operation in operations:
            if operation.body is not None:
                wanted.append((operation.body, "validation"))
            for answer in operation.answers.values():
                if answer.model is not None and not isinstance(answer.model, dict):
                    wanted.append((answer.model, "serialization"))
        self._schemas, definitions = TypeAdapter.json_schemas(
            [((str(model), mode), mode, TypeAdapter(model)) for model, mode in wanted],
            ref_template=_SCHEMA,
            schema_generator=_Schema,
        )
        self.components: dict[str, Any] = dict(sorted(definitions["$defs"].items()))

    def schema(self, model: object, mode: str) -> JsonSchemaValue:
        """A reference to `model`, or what it is made of where it is not a model itself."""
        return self._schemas[(str(model), mode), mode]  # type: ignore[index]


class _Schema(GenerateJsonSchema):
    """JSON Schema as a person would write it: without titles that repeat a name, and without `null` where None only
    stands for "left out"."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        described = super().model_schema(schema)
        described.pop("title", None)
        return described

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        described = super().default_schema(schema)
        if described.get("default", ...) is None:
            del described["default"]
            _drop_null(described)
        return described

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        described = super().nullable_schema(schema)
        match described:
            case {"anyOf": [{"type": str() as name} as inner, {"type": "null"}]}:
                return {**inner, "type": [name, "null"]}
        return described

    def field_is_required(self, field: Any, total: bool) -> bool:
        if self.mode == "serialization" and field["schema"]["type"] == "default":
            # What we write is there although it has a default, unless it is left out for being None.
            return field["schema"].get("default", ...) is not None
        return super().field_is_required(field, total)


def _drop_null(described: JsonSchemaValue) -> None:
    match described:
        case {"type": [str() as name, "null"]}:
            described["type"] = name
        case {"anyOf": [inner, {"type": "null"}]}:
            del described["anyOf"]
            described.update(inner)
