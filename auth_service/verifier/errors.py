"""Why a token was refused, as one tree of exceptions. How a refusal is answered over HTTP is decided elsewhere.

    VerifierError
    └── InvalidToken            401, `invalid_token` (RFC 6750 §3.1)
        ├── MalformedToken      not a compact JWS of the kind expected here
        ├── UnknownKey          its `kid` names no key of the issuer
        ├── BadSignature        the key is known, the signature is not its own
        ├── InvalidClaim        signed, but a claim is missing, mistyped or not for us
        └── ExpiredToken        everything is right but the time

The text of an exception is for logs: it never holds a token, a claim's value or any other input.
"""


class VerifierError(Exception):
    """The root: catch this to catch every refusal."""


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
        super().__init__(f"{claim}: {reason}")
        self.claim = claim


class ExpiredToken(InvalidToken):
    """The token was good once; its `exp` has passed."""
