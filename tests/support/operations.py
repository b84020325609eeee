"""Every operation of both ports, as the OpenAPI documents name them, with paths that can be called."""

import re

from tests.support.service import Service


async def operations(service: Service) -> list[tuple[str, str, str]]:
    """Port (`public` or `internal`), method and path of each; an id in a path is one of nothing."""
    found = []
    for port, http in (("public", service.http), ("internal", service.internal)):
        document = (await http.get("/openapi.json")).json()
        for path, methods in document["paths"].items():
            real = re.sub(r"\{[a-z]+\}", "00000000-0000-0000-0000-000000000000", path)
            found += [(port, method.upper(), real) for method in methods]
    return found
