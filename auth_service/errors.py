"""Everything this service may refuse a caller with, as one tree. `edge/problems.py` renders it.

    ServiceError                    status, code, detail: what the caller is told
    ├── InvalidRequest              400, with the fields of ours that are wrong
    ├── UnreadableBearer            400, RFC 6750 §3
    ├── InvalidCredentials          401, one answer for unknown, wrong and disabled
    ├── InvalidBearer               401, RFC 6750 §3
    ├── InvalidClient               401, RFC 6749 §5.2
    ├── GrantRefused                400, RFC 6749 §5.2, with which of its codes
    ├── RefreshRefused              401, with why
    ├── InsufficientScope           403, RFC 6750 §3.1, with what is needed
    ├── OriginRefused               403, with which rule
    ├── NotFound                    404
    ├── Taken                       409, with what
    ├── OwnAccount                  409, what an administrator may not do to themselves
    ├── PayloadTooLarge             413
    ├── UnsupportedMediaType        415
    ├── WeakPassword                422, with the rule that was not met
    ├── TooManyAttempts             429 + Retry-After
    └── Unavailable                 503 + Retry-After

`reason` is for the log alone. Neither it nor `detail` ever holds input, a token or a secret.
"""

from typing import ClassVar, Literal


class ServiceError(Exception):
    """A refusal. Its text is the private `reason`; `detail` is what the caller reads."""

    status: ClassVar[int]
    code: str
    detail: str
    fields: tuple[tuple[str, str], ...] = ()
    """Pairs of a field of ours and what is wrong with it."""
    retry_after: int | None = None
    """Seconds."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or self.detail)
        self.reason = str(self)


class InvalidRequest(ServiceError):
    """The request is not one of ours. `fields` names the members that are wrong."""

    status = 400
    code = "invalid_request"

    def __init__(self, detail: str, *, fields: tuple[tuple[str, str], ...] = ()) -> None:
        self.detail = detail
        self.fields = fields
        super().__init__()


class UnreadableBearer(ServiceError):
    """The request presents not one access token, but several, or a scheme and then none."""

    status = 400
    code = "invalid_request"
    detail = "Present one access token, in one way."


class InvalidCredentials(ServiceError):
    """The name or the password is wrong, or the account is disabled: the caller is not told which."""

    status = 401
    code = "invalid_credentials"
    detail = "The account or the password is not right."


class InvalidBearer(ServiceError):
    """The access token is missing, not good, or its session has ended."""

    status = 401
    code = "invalid_token"

    def __init__(self, reason: str, *, presented: bool = True) -> None:
        self.presented = presented
        self.detail = (
            "The access token is expired, revoked or not valid." if presented else "An access token is needed."
        )
        super().__init__(reason)


class InvalidClient(ServiceError):
    """The client is unknown, its secret is wrong, or it may not do without one: it is not told which."""

    status = 401
    code = "invalid_client"
    detail = "The client is not known here, or did not prove who it is."


class GrantRefused(ServiceError):
    """What a client asks for is refused, with a code of RFC 6749 §5.2 or RFC 8707 §2."""

    status = 400

    def __init__(
        self,
        code: Literal[
            "invalid_grant", "invalid_scope", "invalid_target", "unauthorized_client", "unsupported_grant_type"
        ],
        detail: str,
    ) -> None:
        self.code = code
        self.detail = detail
        super().__init__()


RefreshRefusal = Literal["invalid_token", "refresh_token_expired", "refresh_token_reused", "refresh_token_revoked"]


class RefreshRefused(ServiceError):
    """The refresh token is refused. Only `refresh_token_reused` changed anything: it ended the session."""

    status = 401
    _DETAILS: ClassVar[dict[RefreshRefusal, str]] = {
        "invalid_token": "The refresh token is missing or not valid.",
        "refresh_token_expired": "The refresh token or its session has expired: sign in again.",
        "refresh_token_reused": "The refresh token was used before, so its session has been ended: sign in again.",
        "refresh_token_revoked": "The session of this refresh token has ended: sign in again.",
    }

    def __init__(self, code: RefreshRefusal, reason: str = "") -> None:
        self.code = code
        self.detail = self._DETAILS[code]
        if code == "invalid_token":
            self.fields = (("refresh_token", "missing or not valid"),)
        super().__init__(reason)


class OriginRefused(ServiceError):
    """A cookie may not be used or set from where this request comes."""

    status = 403
    _DETAILS: ClassVar[dict[str, str]] = {
        "origin_not_allowed": "The cookie transport needs an Origin from the configured list.",
        "cookie_needs_same_site": "A browser drops a SameSite cookie on a cross-site request: serve the page and this "
        "service from one site, or use the body transport.",
    }

    def __init__(self, code: Literal["origin_not_allowed", "cookie_needs_same_site"]) -> None:
        self.code = code
        self.detail = self._DETAILS[code]
        super().__init__()


class InsufficientScope(ServiceError):
    """The access token is good, but `scope` is not in it, or its bearer does not hold that any more."""

    status = 403
    code = "insufficient_scope"

    def __init__(self, scope: str, reason: str) -> None:
        self.scope = scope
        self.detail = f"The access token needs the scope {scope}, and its bearer must hold it now."
        super().__init__(reason)


class NotFound(ServiceError):
    """There is no such thing, or it is somebody else's."""

    status = 404
    code = "not_found"
    detail = "There is nothing here."


class Taken(ServiceError):
    """Another account has this e-mail address or user name, or another client this name."""

    status = 409
    _DETAILS: ClassVar[dict[str, str]] = {
        "email": "Another account has this e-mail address.",
        "username": "Another account has this user name.",
        "client_name": "Another client has this name.",
    }

    def __init__(self, field: Literal["email", "username", "client_name"]) -> None:
        self.code = f"{field}_taken"
        self.detail = self._DETAILS[field]
        self.fields = ((field, "taken"),)
        super().__init__()


class OwnAccount(ServiceError):
    """An administrator would lock themselves out."""

    status = 409
    code = "own_account"
    detail = (
        "This would lock you out: your own account can be disabled, deleted or lose auth:admin only by another "
        "administrator or on the command line."
    )


class PayloadTooLarge(ServiceError):
    """The body is over the limit."""

    status = 413
    code = "payload_too_large"

    def __init__(self, limit: int) -> None:
        self.detail = f"The body is larger than {limit} bytes."
        super().__init__()


class UnsupportedMediaType(ServiceError):
    """The body is not of the type that is read here."""

    status = 415
    code = "unsupported_media_type"

    def __init__(self, wanted: str = "application/json") -> None:
        self.detail = f"The body must be {wanted}."
        super().__init__()


class WeakPassword(ServiceError):
    """The new password does not meet the rules; `detail` says which one."""

    status = 422
    code = "weak_password"

    def __init__(self, detail: str, *, field: str) -> None:
        self.detail = detail
        self.fields = ((field, detail),)
        super().__init__()


class TooManyAttempts(ServiceError):
    """This client asks for more than its share."""

    status = 429
    code = "too_many_attempts"
    detail = "There has been too much from this client: wait, then try again."

    def __init__(self, reason: str, *, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(reason)


class Unavailable(ServiceError):
    """Something this service needs is away or too busy. No token was spent: the same request may be sent again."""

    status = 503
    code = "unavailable"
    detail = "The service cannot answer now: try again."

    def __init__(self, reason: str, *, retry_after: int = 1) -> None:
        self.retry_after = retry_after
        super().__init__(reason)
