"""`/openapi.json` and `/docs`: the document, and a page that shows it and loads nothing from other hosts."""

import json
from collections.abc import Callable, Iterable
from functools import cache
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

from auth_service.endpoints.operation import Answer, Handler, Operation

# Swagger UI sets its styles by script, one property at a time: neither they nor its scripts need anything inline.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
}

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>auth-service API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="stylesheet" href="/docs/page.css">
</head>
<body>
<main id="api"><p class="loading">Loading the API…</p></main>
<script src="/docs/swagger-ui.js"></script>
<script src="/docs/page.js"></script>
</body>
</html>
"""

_SCRIPT = """// Swagger UI reads its colours from a class on <html>; the system's preference sets it.
const dark = matchMedia("(prefers-color-scheme: dark)");
const paint = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", paint);
paint();
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#api",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
});
"""

_STYLE = """body { margin: 0; }
html.dark-mode, html.dark-mode body { background: #1c2022; }
.loading { font: 16px system-ui, sans-serif; padding: 2rem; text-align: center; }
@media (max-width: 640px) {
  .swagger-ui .wrapper { padding: 0 12px; }
  .swagger-ui .opblock .opblock-summary { flex-wrap: wrap; }
  .swagger-ui .opblock .opblock-summary-path { max-width: 100%; word-break: break-word; }
  .swagger-ui .opblock .opblock-summary-description { flex-basis: 100%; padding: 4px 10px; }
}
"""

_ASSETS = {
    "/docs/swagger-ui.js": ("swagger_bundle.js", "text/javascript"),
    "/docs/swagger-ui.css": ("swagger_style.css", "text/css"),
}


class DocumentationEndpoints:
    """`document` is called at the first request: the document describes these endpoints too."""

    def __init__(self, *, document: Callable[[], dict[str, object]]) -> None:
        self._described = document
        self._written: bytes | None = None

    def document(self) -> Iterable[Operation]:
        """The document alone."""
        yield Operation(
            "GET",
            "/openapi.json",
            self.openapi,
            "This interface as an OpenAPI document",
            "Documentation",
            {200: Answer("The document.", {"type": "object"})},
        )

    def operations(self) -> Iterable[Operation]:
        """The document and the page that shows it."""
        yield from self.document()
        yield Operation(
            "GET",
            "/docs",
            self.page,
            "This interface as a page",
            "Documentation",
            {200: Answer("The page.", {"type": "string"}, "text/html")},
            slash_too=True,
        )

    def assets(self) -> Iterable[Operation]:
        """What the page loads; not part of the documented interface."""
        for path, (name, media_type) in _ASSETS.items():
            yield Operation("GET", path, _asset(name, media_type), "", "", {})
        yield Operation("GET", "/docs/page.js", _text(_SCRIPT, "text/javascript"), "", "", {})
        yield Operation("GET", "/docs/page.css", _text(_STYLE, "text/css"), "", "", {})

    async def openapi(self, _request: Request) -> Response:
        if self._written is None:
            self._written = json.dumps(self._described()).encode()
        return Response(self._written, media_type="application/json")

    async def page(self, _request: Request) -> Response:
        return Response(_PAGE, media_type="text/html", headers=_HEADERS)


@cache
def _packaged(name: str) -> bytes:
    """A file of Swagger UI, from the wheel that carries it."""
    return resources.files("offapi").joinpath(name).read_bytes()


def _asset(name: str, media_type: str) -> Handler:
    async def asset(_request: Request) -> Response:
        return Response(_packaged(name), media_type=media_type, headers={"Cache-Control": "public, max-age=86400"})

    return asset


def _text(content: str, media_type: str) -> Handler:
    async def text(_request: Request) -> Response:
        return Response(content, media_type=media_type, headers={"Cache-Control": "public, max-age=300"})

    return text
