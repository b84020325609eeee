"""Why a request was refused, as one tree of exceptions. How a refusal is answered over HTTP is in `challenge.py`.

    VerifierError
    ├── InvalidRequest          400, `invalid_request`: credentials sent twice, or not readable as credentials
    ├── MissingCredentials      401, without an error code: nothing was presented
    ├── InvalidToken            401, `invalid_token` (RFC 6750 §3.1)
    │   ├── MalformedToken      not a compact JWS of the kind expected here
    │   ├── UnknownKey          its `kid` names no key of the issuer
    │   ├── BadSignature        the key is known, the signature is not its own
    │   ├── InvalidClaim        signed, but a claim is missing, mistyped or not for us
    │   ├── ExpiredToken        everything is right but the time
    │   └── RevokedToken        everything is right, but the session, token, client or key has been revoked
    ├── InsufficientScope       403, `insufficient_scope`: a good token that does not allow this
    └── Unavailable             503: whether the token is good cannot be said now
        ├── KeysUnavailable     the issuer's keys are not known
        └── RevocationsUnavailable  what the issuer has revoked is not known, or not recently enough

The text of an exception is for logs: it never holds a token, a claim's value or any other input.
"""

from collections.abc import Collection


class VerifierError(Exception):
    """The root: catch this to catch every refusal."""


class InvalidRequest(VerifierError):
    """The credentials of the request cannot be read, or there are two of them."""


class MissingCredentials(VerifierError):
    """The request presents no access token, and needs one."""


class InvalidToken(VerifierError):
    """The token is refused. `code` is the error code of RFC 6750 §3.1."""

    code = "invalid_token"


class MalformedToken(InvalidToken):
    """Not a compact JWS that this verifier would ever accept, whatever its signature."""


class UnknownKey(InvalidToken):
    """The `kid` names no key of the issuer."""


class BadSignature(InvalidToken):
    """The signature was not made with the key that `kid` names."""


class InvalidClaim(InvalidToken):
    """A claim is missing, has the wrong type, or does not name us.

    `claim` is the name of one of the claims this verifier asks for, never a name taken from the token.
    """

    def __init__(self, claim: str, reason: str) -> None:
        super().__init__(claim, reason)  # as they were given: an exception is copied by its arguments
        self.claim = claim

    def __str__(self) -> str:
        return ": ".join(self.args)


class ExpiredToken(InvalidToken):
    """The token was good once; its `exp` has passed."""


class RevokedToken(InvalidToken):
    """The token was good once; the issuer has revoked it, its session, its client or its key."""


class InsufficientScope(VerifierError):
    """The token is good and lacks a scope. `scopes` are those that are needed, in the order they were asked for."""

    def __init__(self, scopes: Collection[str]) -> None:
        self.scopes = tuple(scopes)
        super().__init__(self.scopes)

    def __str__(self) -> str:
        return "the token lacks a scope"


class Unavailable(VerifierError):
    """Nothing can be said of the token now; the same request may be sent again after `retry_after` seconds."""

    retry_after = 1


class KeysUnavailable(Unavailable):
    """The issuer's keys have not been fetched, or may not hold the key of this token."""


class RevocationsUnavailable(Unavailable):
    """The revocation feed has not been heard yet, or not within the staleness allowed here."""
