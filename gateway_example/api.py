"""The routes under `/api`: one for everybody, one for users, one behind a scope, and one that wants fresh knowledge."""

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from auth_service.verifier import requires


async def public(request: Request) -> Response:
    """For everybody; it may still look at who is asking."""
    name = request.user.display_name if request.user.is_authenticated else "stranger"
    return JSONResponse({"hello": name})


@requires()
async def me(request: Request) -> Response:
    claims = request.auth.claims
    return JSONResponse(
        {
            "user": {"id": request.user.id, "username": request.user.username},
            "session": claims.get("sid"),
            "client": claims["client_id"],
            "scopes": sorted(claims.get("scope", "").split()),
            "expires_at": datetime.fromtimestamp(claims["exp"], UTC).isoformat(timespec="seconds"),
        }
    )


@requires("reports:read")
async def reports(request: Request) -> Response:
    return JSONResponse({"for": request.user.username, "reports": ["January", "February", "March"]})


@requires("profile", max_staleness=5)
async def transfer(request: Request) -> Response:
    """What must not be done with a token that was revoked a minute ago: while auth is away, this says 503."""
    return JSONResponse({"by": request.user.username, "transferred": "nothing, this is an example"})
