"""The page at `/` and its files, read once at the start: no path of a request is ever looked up on a disk."""

from hashlib import sha256
from importlib import resources

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_JAVASCRIPT = "text/javascript"
_FILES = {
    "/": ("index.html", "text/html"),
    "/static/style.css": ("style.css", "text/css"),
    "/static/icon.svg": ("icon.svg", "image/svg+xml"),
    "/static/activity.js": ("activity.js", _JAVASCRIPT),
    "/static/app.js": ("app.js", _JAVASCRIPT),
    "/static/auth-client.js": ("auth-client.js", _JAVASCRIPT),
    "/static/badge.js": ("badge.js", _JAVASCRIPT),
    "/static/busy.js": ("busy.js", _JAVASCRIPT),
    "/static/calls.js": ("calls.js", _JAVASCRIPT),
    "/static/forms.js": ("forms.js", _JAVASCRIPT),
    "/static/live.js": ("live.js", _JAVASCRIPT),
    "/static/sessions.js": ("sessions.js", _JAVASCRIPT),
}


def routes(*, issuer: str) -> list[Route]:
    """The page, its files, and `/config.json`, which tells the page where to sign in."""

    async def config(_request: Request) -> Response:
        return JSONResponse({"issuer": issuer}, headers={"Cache-Control": "no-cache"})

    return [Route("/config.json", config), *(_route(path, *file) for path, file in _FILES.items())]


def _route(path: str, name: str, media_type: str) -> Route:
    content = resources.files("gateway_example").joinpath("static", name).read_bytes()
    etag = f'"{sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache"}

    async def file(request: Request) -> Response:
        # Weak comparison (RFC 9110 §13.1.2): a proxy that compresses may have marked it so.
        candidates = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if etag in candidates or "*" in candidates:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    return Route(path, file)
