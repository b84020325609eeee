"""Origins: from which pages the cookie transport may be used, and CORS for them.

SameSite alone does not stop a sibling subdomain, so whatever sets or uses the cookie needs an exact `Origin`.
"""

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from auth_service.edge.problems import problem
from auth_service.errors import OriginRefused


class Origins:
    """The exact list of allowed origins; the issuer's own is one of them."""

    def __init__(self, issuer: str, allowed: tuple[str, ...]) -> None:
        self._allowed = frozenset((issuer, *allowed))

    def cookie_refusal(self, headers: Headers) -> OriginRefused | None:
        """Why a request with these headers may not use the cookie transport, or None if it may."""
        origins = headers.getlist("origin")
        fetch_sites = headers.getlist("sec-fetch-site")
        if origins and (len(origins) != 1 or origins[0] not in self._allowed):
            return OriginRefused("origin_not_allowed")
        if "cross-site" in map(str.lower, fetch_sites):
            return OriginRefused("cookie_needs_same_site")
        if not origins and fetch_sites != ["same-origin"]:
            return OriginRefused("origin_not_allowed")
        return None

    def cors(self) -> Middleware:
        """CORS for the allowed origins, with credentials."""
        return Middleware(
            _CORS,
            allow_origins=sorted(self._allowed),
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
            allow_credentials=True,
            expose_headers=["ETag", "Retry-After", "WWW-Authenticate", "X-Request-ID"],
            max_age=600,
        )


class _CORS(CORSMiddleware):
    """Starlette's, except that a refused preflight is a problem like every other refusal."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        vary = {"Vary": response.headers["vary"]}
        if not self.is_allowed_origin(request_headers["origin"]):
            return problem(403, "origin_not_allowed", "Pages of this origin may not call this service.", headers=vary)
        detail = "Pages may not call this service with that method or those headers."
        return problem(400, "invalid_request", detail, headers=vary)
