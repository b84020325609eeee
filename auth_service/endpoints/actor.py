"""Who makes a request, and from where, as the audit log puts it down."""

from uuid import UUID

from starlette.requests import Request

from auth_service.audit import Actor, Source

_USER_AGENT_LENGTH = 256


def source_of(request: Request) -> Source:
    """Where the request came from. The user agent is the caller's own text: cut, and without what cannot be seen."""
    user_agent = request.headers.get("user-agent", "")
    printable = "".join(character for character in user_agent if character.isprintable())
    return Source(request.state.client_address, printable[:_USER_AGENT_LENGTH] or None, request.state.request_id)


def user_actor(user_id: UUID, request: Request) -> Actor:
    """The user who has shown an access token with this request."""
    return Actor("user", str(user_id), source_of(request))
