"""Where a request came from, as the audit log and a session remember it."""

from starlette.requests import Request

from auth_service.audit import Source

_USER_AGENT_LENGTH = 256


def source_of(request: Request) -> Source:
    """The client's address, what it calls itself (what can be printed of it), and the request's id."""
    user_agent = request.headers.get("user-agent", "")
    printable = "".join(character for character in user_agent if character.isprintable())
    state = request.state
    return Source(state.client_address, printable[:_USER_AGENT_LENGTH] or None, state.request_id)
