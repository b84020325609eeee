"""The Authorization header of a request (RFC 9110 §11.6.2): which scheme it names, and what comes with it."""

from starlette.requests import Request

from auth_service.errors import InvalidRequest


def presented_credentials(request: Request) -> tuple[str, str] | None:
    """The scheme in lower case, and the credentials; None where there is no such header.

    Raises InvalidRequest for two headers: which one counts would be a guess.
    """
    values = request.headers.getlist("authorization")
    if len(values) > 1:
        raise InvalidRequest("There is more than one Authorization header.")
    if not values:
        return None
    scheme, _, credentials = values[0].partition(" ")
    return scheme.lower(), credentials.strip(" ")


def presented_access_token(request: Request) -> str | None:
    """What follows `Bearer` (RFC 6750 §2.1); None where nothing of the kind was sent. Raises InvalidRequest."""
    match presented_credentials(request):
        case ("bearer", access_token):
            return access_token
        case _:
            return None
