"""`requires`: what one route demands of the access token, as a decorator."""

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any, TypeVar, cast

from starlette.requests import HTTPConnection, Request
from starlette.websockets import WebSocket

from auth_service.verifier.challenge import Challenge, answer, challenge
from auth_service.verifier.errors import InsufficientScope, MissingCredentials, VerifierError
from auth_service.verifier.identity import AnonymousCredentials, BearerCredentials
from auth_service.verifier.verifier import checked_staleness

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def requires(*scopes: str | Collection[str], max_staleness: float | None = None) -> Callable[[Endpoint], Endpoint]:
    """Demand a good access token with all of `scopes`, for a route behind `BearerMiddleware`.

    `max_staleness`, in seconds: how long ago revocations may have been heard last, where the verifier's own limit is
    too long for what this route does; 503 past it. Without a token 401, without a scope 403 (RFC 6750 §3.1).

    Decorates functions and methods that take a `Request` or `WebSocket`, plain or async, of Starlette and FastAPI.
    """
    if any(callable(given) for given in scopes):
        raise TypeError("requires() is called with scopes, or with none: write @requires(), not @requires")
    needed = tuple(dict.fromkeys(name for given in scopes for name in ([given] if isinstance(given, str) else given)))
    as_set = frozenset(needed)
    checked_staleness(max_staleness)

    def decorate(endpoint: Endpoint) -> Endpoint:
        if inspect.isclass(endpoint):
            raise TypeError("requires() decorates functions and methods: decorate each method of an HTTPEndpoint")
        if inspect.iscoroutinefunction(endpoint) or inspect.iscoroutinefunction(getattr(endpoint, "__call__", None)):  # noqa: B004

            @functools.wraps(endpoint)
            async def guarded(*args: Any, **kwargs: Any) -> Any:
                connection = args[0] if args and type(args[0]) is Request else _connection(args, kwargs)
                credentials = connection.scope.get("auth")
                if max_staleness is None and type(credentials) is BearerCredentials and credentials.held >= as_set:
                    return await endpoint(*args, **kwargs)  # nearly always
                try:
                    authorized(connection, needed, max_staleness=max_staleness)
                except VerifierError as refusal:
                    refused = _challenge(refusal, connection)
                    if isinstance(connection, WebSocket):
                        # Through the WebSocket, which keeps account of what has been sent.
                        return await answer(refused, connection.scope, connection.receive, connection.send)
                    return refused.response()
                return await endpoint(*args, **kwargs)

            return cast(Endpoint, guarded)

        @functools.wraps(endpoint)
        def guarded_in_thread(*args: Any, **kwargs: Any) -> Any:
            connection = _connection(args, kwargs)
            try:
                authorized(connection, needed, max_staleness=max_staleness)
            except VerifierError as refusal:
                return _challenge(refusal, connection).response()
            return endpoint(*args, **kwargs)

        return cast(Endpoint, guarded_in_thread)

    return decorate


def authorized(
    connection: HTTPConnection, scopes: str | Collection[str], *, max_staleness: float | None = None
) -> BearerCredentials:
    """The credentials of a request that may do what it asks for: what `requires` decides, for code that asks itself.

    Raises MissingCredentials, InsufficientScope, RevocationsUnavailable.
    """
    scopes = (scopes,) if isinstance(scopes, str) else scopes
    credentials = connection.scope.get("auth")
    if not isinstance(credentials, BearerCredentials):
        if isinstance(credentials, AnonymousCredentials):
            raise MissingCredentials("no access token")
        raise RuntimeError("no BearerMiddleware, nor JWTAuthenticationBackend, is in front of this route")
    if not credentials.allow(scopes):
        raise InsufficientScope(scopes)
    if max_staleness is not None:
        credentials.verifier.require_fresh(max_staleness)
    return credentials


def _challenge(refusal: VerifierError, connection: HTTPConnection) -> Challenge:
    return challenge(refusal, realm=connection.scope["auth"].verifier.realm)


def _connection(args: tuple[Any, ...], kwargs: dict[str, Any]) -> HTTPConnection:
    for value in (*args, *kwargs.values()):
        if isinstance(value, HTTPConnection):
            return value
    raise TypeError("an endpoint that requires() decorates must take the Request or the WebSocket")
