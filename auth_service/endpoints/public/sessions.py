"""A session's life after its opening: `/user/refresh-token`, `/user/logout` and `/user/sessions`."""

from collections.abc import Iterable
from uuid import UUID

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from auth_service.accounts.users import Users
from auth_service.edge.origins import Origins
from auth_service.endpoints import refresh_cookie, schemas
from auth_service.endpoints.actor import source_of, user_actor
from auth_service.endpoints.authorization import presented_credentials
from auth_service.endpoints.bearer import BearerAuthentication
from auth_service.endpoints.body import parse_body
from auth_service.endpoints.json_response import json_list, token_response
from auth_service.endpoints.operation import Answer, Operation
from auth_service.endpoints.presented import PresentedSessions
from auth_service.errors import InvalidBearer, NotFound, RefreshRefused
from auth_service.sessions.ending import SessionEnding
from auth_service.sessions.refresh import RefreshProtocol
from auth_service.sessions.store import SessionStore

_SESSION_LIST = TypeAdapter(list[schemas.SessionInfo])


class SessionEndpoints:
    """Refresh, logout, and the list of one's own sessions."""

    def __init__(
        self,
        *,
        refresh: RefreshProtocol,
        sessions: SessionStore,
        ending: SessionEnding,
        users: Users,
        bearer: BearerAuthentication,
        presented: PresentedSessions,
        origins: Origins,
    ) -> None:
        self._refresh = refresh
        self._sessions = sessions
        self._ending = ending
        self._users = users
        self._bearer = bearer
        self._presented = presented
        self._origins = origins

    def operations(self) -> Iterable[Operation]:
        yield Operation(
            "POST",
            "/user/refresh-token",
            self.refresh_token,
            "Exchange the refresh token for new tokens",
            "Sessions",
            {200: Answer("New tokens of the same session.", schemas.TokenResponse, headers=refresh_cookie.DESCRIBED)},
            problems=(401, 403),
            body=schemas.Refresh,
            body_required=False,
            credentials=("refresh_cookie",),
            slash_too=True,
        )
        yield Operation(
            "POST",
            "/user/logout",
            self.logout,
            "End the session of every credential presented",
            "Sessions",
            {204: Answer("The sessions have ended, or had before.")},
            problems=(401, 403),
            body=schemas.Logout,
            body_required=False,
            credentials=("bearer", "refresh_cookie"),
            slash_too=True,
        )
        yield Operation(
            "GET",
            "/user/sessions",
            self.list_sessions,
            "List one's live sessions",
            "Sessions",
            {200: Answer("The sessions, the newest first.", list[schemas.SessionInfo])},
            problems=(401,),
            credentials=("bearer",),
            anonymous=False,
            slash_too=True,
        )
        yield Operation(
            "DELETE",
            "/user/sessions",
            self.end_sessions,
            "End all of one's sessions, this one too",
            "Sessions",
            {204: Answer("They have ended.")},
            problems=(401,),
            credentials=("bearer",),
            anonymous=False,
            slash_too=True,
        )
        yield Operation(
            "DELETE",
            "/user/sessions/{id}",
            self.end_session,
            "End one of one's sessions",
            "Sessions",
            {204: Answer("It has ended.")},
            problems=(401, 404),
            credentials=("bearer",),
            anonymous=False,
            path_parameters={"id": {"type": "string", "format": "uuid"}},
            slash_too=True,
        )

    async def refresh_token(self, request: Request) -> Response:
        body = await parse_body(request, schemas.Refresh, optional=True)
        cookie = refresh_cookie.presented(request)
        cookie_refusal = self._origins.cookie_refusal(request.headers)
        if cookie is not None and cookie_refusal is not None:
            raise cookie_refusal
        refresh_token = body.refresh_token or cookie
        if not refresh_token:
            raise RefreshRefused("invalid_token", "none was presented")
        tokens = await self._refresh.refresh(refresh_token, source=source_of(request), cookie_refusal=cookie_refusal)
        response = token_response(schemas.TokenResponse.of(tokens))
        refresh_cookie.attach(response, tokens)
        return response

    async def logout(self, request: Request) -> Response:
        body = await parse_body(request, schemas.Logout, optional=True)
        cookie = refresh_cookie.presented(request)
        if cookie is not None:
            refusal = self._origins.cookie_refusal(request.headers)
            if refusal is not None:
                raise refusal
        # Not as strict as elsewhere: what comes as a bearer's is a credential, and one that is no good ends nothing.
        scheme, credentials = presented_credentials(request) or ("", "")
        access_token = credentials if scheme == "bearer" else None
        if access_token is None and body.refresh_token is None and cookie is None:
            raise InvalidBearer("no credentials", presented=False)
        named = await self._presented.named_by(access_token=access_token, refresh_tokens=(body.refresh_token, cookie))
        await self._ending.end(named, reason="logout", by=source_of(request))
        response = Response(status_code=204)
        if cookie is not None:
            refresh_cookie.clear(response)
        return response

    async def list_sessions(self, request: Request) -> Response:
        bearer = await self._bearer.authenticate(request)
        sessions = await self._sessions.live_of_user(bearer.subject.id, now=bearer.now)
        listed = [schemas.SessionInfo.of(session, current=bearer.session.id) for session in sessions]
        return json_list(listed, _SESSION_LIST)

    async def end_sessions(self, request: Request) -> Response:
        bearer = await self._bearer.authenticate(request)
        await self._users.end_sessions(bearer.subject.id, reason="logout", by=user_actor(bearer.subject.id, request))
        return Response(status_code=204)

    async def end_session(self, request: Request) -> Response:
        bearer = await self._bearer.authenticate(request)
        try:
            session_id = UUID(request.path_params["id"])
        except ValueError:
            raise NotFound("not a session id") from None
        session = (await self._sessions.standing(session_id)).session
        if session is None or session.user_id != bearer.subject.id:
            raise NotFound("no such session of this user")
        await self._ending.end([session_id], reason="logout", by=user_actor(bearer.subject.id, request))
        return Response(status_code=204)
