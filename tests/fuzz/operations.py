"""What is attacked: every operation of both ports, as their OpenAPI documents describe them."""

from dataclasses import dataclass
from typing import Any

import httpx2

from tests.support.processes import ServedProcess

# With good credentials these would end the session or the keys that all other requests lean on.
_ENDS_IT_ALL = frozenset({
    ("POST", "/user/logout"), ("DELETE", "/user/sessions"), ("POST", "/admin/keys/rotate"),
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """One operation. `example`: a good body, of `media_type`."""

    internal: bool
    method: str
    path: str
    query: tuple[str, ...]
    media_type: str
    example: dict[str, Any] | None

    @property
    def hashes(self) -> bool:
        """Whether a good body costs a password hash: those must stay rare, or nothing else would be measured."""
        return self.example is not None and any("password" in name for name in self.example)

    @property
    def spares_credentials(self) -> bool:
        return (self.method, self.path) in _ENDS_IT_ALL


def targets(process: ServedProcess) -> list[Target]:
    """All of them, in a fixed order."""
    found = []
    for internal, url in ((False, process.url), (True, process.internal_url)):
        document = httpx2.get(f"{url}/openapi.json").json()
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                [(media_type, content)] = operation.get("requestBody", {}).get("content", {"": {}}).items()
                found.append(
                    Target(
                        internal,
                        method.upper(),
                        path,
                        tuple(each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"),
                        media_type,
                        _example(document, content["schema"]) if content else None,
                    )
                )
    return found


def _example(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    model = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return {name: member.get("examples", ["x"])[0] for name, member in model["properties"].items()}
