"""`/admin/audit-events`: the audit log, for reading."""

from collections.abc import Iterable
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response

from auth_service.audit_trail import AuditFilter, audit_events
from auth_service.endpoints.internal import schemas
from auth_service.endpoints.internal.administrator import AdminAuthentication, admin_operation
from auth_service.endpoints.internal.paging import Cursors, Page, page_of
from auth_service.endpoints.operation import Answer, Operation
from auth_service.endpoints.query import parse_query
from auth_service.stores.database import Database

_CURSORS = Cursors("audit-events", datetime, int)


class AuditEndpoints:
    """Listing the events. Nothing here changes one."""

    def __init__(self, *, database: Database, admin: AdminAuthentication) -> None:
        self._database = database
        self._admin = admin

    def operations(self) -> Iterable[Operation]:
        yield admin_operation(
            "GET",
            "/admin/audit-events",
            self.list_events,
            "List audit events, the newest first",
            "Audit",
            {200: Answer("A page of events.", Page[schemas.AuditEvent])},
            query=schemas.AuditQuery,
        )

    async def list_events(self, request: Request) -> Response:
        await self._admin.authenticate(request)
        query = parse_query(request, schemas.AuditQuery)
        after = _CURSORS.read(query.cursor)
        wanted = AuditFilter(query.action, query.actor, query.target, query.since, query.until)
        found = await audit_events(self._database, wanted, before=after and (after[0], after[1]), limit=query.limit + 1)
        return page_of(
            found,
            query.limit,
            item=schemas.AuditEvent.of,
            cursor=lambda event: _CURSORS.write(event.occurred_at, event.id),
        )
