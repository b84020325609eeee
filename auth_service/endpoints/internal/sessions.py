"""`/admin/users/{id}/sessions` and `/admin/sessions/{id}`: sessions, as an administrator sees and ends them."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from auth_service.accounts.users import Users
from auth_service.endpoints.internal import path_ids, schemas
from auth_service.endpoints.internal.administrator import AdminAuthentication, admin_operation
from auth_service.endpoints.internal.paging import Cursors, Page, PageQuery, page_of
from auth_service.endpoints.internal.path_ids import path_id
from auth_service.endpoints.operation import Answer, Operation
from auth_service.endpoints.query import parse_query
from auth_service.errors import NotFound
from auth_service.sessions.ending import SessionEnding
from auth_service.sessions.store import SessionStore

_CURSORS = Cursors("sessions", datetime, UUID)


class SessionAdministration:
    """Listing a user's live sessions, and ending one or all."""

    def __init__(
        self, *, users: Users, sessions: SessionStore, ending: SessionEnding, admin: AdminAuthentication
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._ending = ending
        self._admin = admin

    def operations(self) -> Iterable[Operation]:
        yield admin_operation(
            "GET",
            "/admin/users/{id}/sessions",
            self.list_sessions,
            "List a user's live sessions, the newest first",
            "Sessions",
            {200: Answer("A page of sessions.", Page[schemas.Session])},
            problems=(404,),
            query=PageQuery,
            path_parameters=path_ids.DESCRIBED,
        )
        yield admin_operation(
            "DELETE",
            "/admin/users/{id}/sessions",
            self.end_sessions,
            "End every session of a user",
            "Sessions",
            {204: Answer("They have ended.")},
            problems=(404,),
            path_parameters=path_ids.DESCRIBED,
        )
        yield admin_operation(
            "DELETE",
            "/admin/sessions/{id}",
            self.end_session,
            "End a session",
            "Sessions",
            {204: Answer("It has ended, or had before.")},
            problems=(404,),
            path_parameters=path_ids.DESCRIBED,
        )

    async def list_sessions(self, request: Request) -> Response:
        admin = await self._admin.authenticate(request)
        query = parse_query(request, PageQuery)
        after = _CURSORS.read(query.cursor)
        account = await self._users.get(path_id(request))
        found = await self._sessions.live_of_user(
            account.id, now=admin.now, after=after and (after[0], after[1]), limit=query.limit + 1
        )
        return page_of(
            found,
            query.limit,
            item=schemas.Session.of,
            cursor=lambda session: _CURSORS.write(session.created_at, session.id),
        )

    async def end_sessions(self, request: Request) -> Response:
        admin = await self._admin.authenticate(request)
        await self._users.end_sessions(path_id(request), reason="admin", by=admin.actor)
        return Response(status_code=204)

    async def end_session(self, request: Request) -> Response:
        admin = await self._admin.authenticate(request)
        session_id = path_id(request)
        if (await self._sessions.standing(session_id)).session is None:
            raise NotFound("no such session")
        await self._ending.end([session_id], reason="admin", by=admin.actor)
        return Response(status_code=204)
