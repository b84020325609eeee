"""`/verify`: forward authentication, for a proxy that asks before it lets a request through to a service that does not
verify tokens itself (nginx `auth_request`, Traefik `ForwardAuth`, Envoy `ext_authz`).
"""

import re
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from auth_service.verifier import requires

_SCOPES = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*")
"""RFC 6749 §3.3."""

_UNENCODED = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


async def verify(request: Request) -> Response:
    """200 with who it is, in headers; or 401, 403 or 503, as the verifier answers everywhere else.

    `?scope=a+b` demands scopes: 403 without them. It comes from the proxy's configuration, never from a visitor: any
    other parameter is 400, since a name that is misspelt there would demand nothing.
    """
    if set(request.query_params) - {"scope"}:
        return JSONResponse({"error": "invalid_request", "error_description": "only scope can be asked for"}, 400)
    several = request.query_params.getlist("scope")
    asked = several[0] if several else ""
    if len(several) > 1:
        return JSONResponse({"error": "invalid_request", "error_description": "there are two scopes"}, 400)
    if asked and not _SCOPES.fullmatch(asked):
        return JSONResponse({"error": "invalid_request", "error_description": "scope is not a list of scopes"}, 400)
    response: Response = await requires(*asked.split())(_identity)(request)
    return response


@requires()
async def verify_original(request: Request) -> Response:
    """The same for a proxy that puts the visitor's own path and query behind `/verify` (Envoy's `path_prefix`).

    Nothing of them is read: a scope in there would be the visitor's.
    """
    return await _identity(request)


async def _identity(request: Request) -> Response:
    claims = request.auth.claims
    identity = {
        "X-Auth-Subject": request.user.id,
        "X-Auth-Username": request.user.username,
        "X-Auth-Scope": claims.get("scope"),
        "X-Auth-Session": claims.get("sid"),
        "X-Auth-Client": claims["client_id"],
    }
    # All of them, always: what is missing here some proxies would let through as the visitor made it up.
    headers = {name: _header_value(value or "") for name, value in identity.items()}
    return Response(headers={**headers, "Cache-Control": "no-store"})


def _header_value(text: str) -> str:
    """Visible ASCII and spaces as they are, all else percent-encoded UTF-8: no name can end a header, or begin one."""
    return quote(text, safe=_UNENCODED)
