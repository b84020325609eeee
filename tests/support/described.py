"""The operations that an OpenAPI document describes: their inputs, and a request that is well formed.

Read from the service's own documents, so that a test which walks them meets each new route by itself.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Described:
    """One operation. The values are well-formed ones."""

    method: str
    path: str
    security: str | None
    """The first scheme that it names, if any."""
    path_values: dict[str, str]
    query_values: dict[str, str]
    body_values: dict[str, Any]
    body_type: str | None

    @property
    def name(self) -> tuple[str, str]:
        return self.method, self.path


def operations(document: dict[str, Any]) -> Iterator[Described]:
    """All operations of a document."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parameters = operation.get("parameters", [])
            values = {
                place: {
                    parameter["name"]: str(_example(parameter["schema"], document))
                    for parameter in parameters
                    if parameter["in"] == place
                }
                for place in ("path", "query")
            }
            schemes = [scheme for entry in operation.get("security", []) for scheme in entry]
            [(body_type, body)] = operation.get("requestBody", {}).get("content", {None: {}}).items()
            properties = _resolved(body["schema"], document)["properties"] if body_type else {}
            yield Described(
                method.upper(),
                path,
                schemes[0] if schemes else None,
                values["path"],
                values["query"],
                {name: _example(schema, document) for name, schema in properties.items()},
                body_type,
            )


def _resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    resolved: dict[str, Any] = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return resolved


def _example(schema: dict[str, Any], document: dict[str, Any]) -> Any:
    schema = _resolved(schema, document)
    for member in ("examples", "enum"):
        if schema.get(member):
            return schema[member][0]
    if "const" in schema:
        return schema["const"]
    if "anyOf" in schema:
        return _example(schema["anyOf"][0], document)
    match schema.get("type"):
        case "array":
            return [_example(schema["items"], document)]
        case "boolean":
            return False
        case "integer" | "number":
            return schema.get("minimum", 1)
        case _:
            return str(uuid.uuid4()) if schema.get("format") == "uuid" else "example"
