"""Origins: from which pages the cookie transport may be used, and CORS for them.

SameSite alone does not stop a sibling subdomain, so whatever sets or uses the cookie needs an exact `Origin`.
"""

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from auth_service.errors import OriginRefused


class Origins:
    """The exact list of allowed origins; the issuer's own is one of them."""

    def __init__(self, issuer: str, allowed: tuple[str, ...]) -> None:
        self._allowed = frozenset((issuer, *allowed))

    def cookie_refusal(self, headers: Headers) -> OriginRefused | None:
        """Why a request with these headers may not use the cookie transport, or None if it may."""
        origins = headers.getlist("origin")
        fetch_site = headers.get("sec-fetch-site")
        if origins and (len(origins) != 1 or origins[0] not in self._allowed):
            return OriginRefused("origin_not_allowed")
        if fetch_site == "cross-site":
            return OriginRefused("cookie_needs_same_site")
        if not origins and fetch_site != "same-origin":
            return OriginRefused("origin_not_allowed")
        return None

    def cors(self) -> Middleware:
        """CORS for the allowed origins, with credentials."""
        return Middleware(
            CORSMiddleware,
            allow_origins=sorted(self._allowed),
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
            allow_credentials=True,
            expose_headers=["ETag", "Retry-After", "WWW-Authenticate", "X-Request-ID"],
            max_age=600,
        )
