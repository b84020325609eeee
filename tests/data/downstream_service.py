"""A downstream service as its team would write it, typed: every public name of the verifier in use."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, assert_type

from fastapi import FastAPI, Security
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from auth_service.verifier import (
    AccessTokenClaims,
    BearerCredentials,
    BearerMiddleware,
    InsufficientScope,
    InvalidToken,
    JWTAuthenticationBackend,
    JWTUser,
    Unavailable,
    Verifier,
    VerifierError,
    authorized,
    requires,
)
from auth_service.verifier.fastapi import Bearer
from auth_service.verifier.testing import FakeIssuer

verifier = Verifier("https://auth.example.com", audience="orders", max_staleness=None)
from_env = Verifier.from_env({"AUTH_ISSUER": "https://auth.example.com", "AUTH_AUDIENCE": "orders"})


@requires("orders:read")
async def orders(request: Request) -> Response:
    credentials = assert_type(authorized(request, ["orders:read"]), BearerCredentials)
    return JSONResponse({"session": credentials.claims["sid"]})


@requires("orders:read", ["orders:write"], max_staleness=5)
def write(request: Request) -> Response:
    user: JWTUser = request.user
    names: tuple[str, str, str | None, str | None] = (user.id, user.display_name, user.username, user.email)
    return JSONResponse(names)


@requires()
async def live(websocket: WebSocket) -> None:
    await websocket.accept()


async def check(text: str) -> str | None:
    try:
        claims = assert_type(await verifier.verify(text), AccessTokenClaims)
    except Unavailable as exc:
        return str(exc.retry_after)
    except InvalidToken as exc:
        return exc.code
    except InsufficientScope as exc:
        return " ".join(exc.scopes)
    except VerifierError:
        return None
    return claims.session_id


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    async with verifier:
        yield


routes = [Route("/orders", orders), Route("/write", write), WebSocketRoute("/live", live)]
starlette = Starlette(
    routes=routes, lifespan=verifier.lifespan, middleware=[Middleware(BearerMiddleware, verifier=verifier)]
)
backend = JWTAuthenticationBackend(verifier)
tutorial = Starlette(
    routes=routes,
    lifespan=lifespan,
    middleware=[Middleware(AuthenticationMiddleware, backend=backend, on_error=backend.on_error)],
)

bearer = Bearer(verifier, max_staleness=5)
fastapi = FastAPI(lifespan=verifier.lifespan)


@fastapi.get("/orders")
def orders_of(user: Annotated[JWTUser, Security(bearer, scopes=["orders:read"])]) -> dict[str, str]:
    return {"for": user.id}


def test() -> None:
    issuer = FakeIssuer.of(verifier)
    headers: dict[str, str] = issuer.headers(sub="user-1", scope="orders:read")
    issuer.revoke(sid="session-1")
    issuer.rotate()
    with issuer.outage():
        issuer.advance(5)
    assert headers
