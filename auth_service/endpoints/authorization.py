"""The Authorization header of a request (RFC 9110 §11.6.2): which scheme it names, and what comes with it."""

from starlette.requests import Request

from auth_service.errors import InvalidRequest, UnreadableBearer
from auth_service.verifier import credentials
from auth_service.verifier.errors import InvalidRequest as NotOneToken


def presented_credentials(request: Request) -> tuple[str, str] | None:
    """The scheme in lower case, and the credentials; None where there is no such header.

    Raises InvalidRequest for two headers: which one counts would be a guess.
    """
    values = request.headers.getlist("authorization")
    if len(values) > 1:
        raise InvalidRequest("There is more than one Authorization header.")
    if not values:
        return None
    scheme, _, rest = values[0].partition(" ")
    return scheme.lower(), rest.strip(" ")


def presented_access_token(request: Request) -> str | None:
    """What follows `Bearer`, read as downstream; None where nothing of the kind was sent. Raises UnreadableBearer."""
    try:
        access_token = credentials.presented_access_token(request.scope)
    except NotOneToken as exc:
        raise UnreadableBearer(str(exc)) from None
    return None if access_token is None else access_token.decode("latin-1")
