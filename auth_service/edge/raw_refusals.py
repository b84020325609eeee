"""Refusals of what never becomes a request: whole HTTP answers as bytes, made once, for the protocol to write.

They look like all other refusals (`edge/problems.py`): problem details with a request id and the security headers.
"""

from http import HTTPStatus

from starlette.responses import Response

from auth_service.edge.problems import problem, render
from auth_service.edge.security_headers import security_headers
from auth_service.errors import Unavailable

_DETAILS = {
    400: "The request is not well-formed HTTP.",
    408: "The request did not come in time.",
    413: "The body is too large.",
    431: "The header is too large.",
}
_CODES = {413: "payload_too_large"}


class RawRefusals:
    """`secure`: the issuer is https."""

    def __init__(self, *, secure: bool) -> None:
        responses = [problem(status, _CODES.get(status, "invalid_request"), text) for status, text in _DETAILS.items()]
        responses.append(render(Unavailable("too many connections")))
        shared = security_headers(secure=secure)
        self._answers = {response.status_code: _written(response, shared) for response in responses}

    def answer(self, status: int, request_id: str) -> bytes:
        """What to write before the connection is closed."""
        head, rest = self._answers[status]
        return b"%bx-request-id: %b\r\n%b" % (head, request_id.encode("ascii"), rest)


def _written(response: Response, shared: dict[str, str]) -> tuple[bytes, bytes]:
    headers = [*response.raw_headers, *((name.lower().encode(), value.encode()) for name, value in shared.items())]
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    status = HTTPStatus(response.status_code)
    head = b"HTTP/1.1 %d %b\r\n%b" % (status, status.phrase.encode(), lines)
    return head, b"connection: close\r\n\r\n%b" % bytes(response.body)
