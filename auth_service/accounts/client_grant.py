"""The client credentials grant (RFC 6749 §4.4): what a client asked for, narrowed to what it may have, as a token.

What is asked for and is not the client's own is refused, never left out: a program that goes on with less than it needs
fails later, and further away.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from auth_service.accounts.clients import AuthenticatedClient, Client
from auth_service.errors import GrantRefused
from auth_service.keys.key_ring import KeyRing
from auth_service.metrics import ACCESS_TOKENS_ISSUED
from auth_service.settings import Settings
from auth_service.tokens import scope as scopes
from auth_service.tokens.access_token import ServiceToken, whole_seconds


@dataclass(frozen=True, slots=True)
class IssuedServiceToken:
    """A service token, its life in seconds, and what it allows."""

    access_token: str = field(repr=False)
    expires_in: int
    scope: str


class ClientCredentialsGrant:
    """Issues service tokens. Raises Unavailable when no signing key is held."""

    def __init__(self, settings: Settings, keys: KeyRing) -> None:
        self._issuer = settings.issuer
        self._audiences = settings.access_token_audiences
        self._life = settings.access_token_ttl
        self._keys = keys

    def issue(
        self, authenticated: AuthenticatedClient, *, scope: str | None = None, audiences: Sequence[str] = ()
    ) -> IssuedServiceToken:
        """A token for what was asked for; where nothing was, for all that the client may have and is not privileged.

        Raises GrantRefused.
        """
        client, now = authenticated.client, authenticated.now
        if "client_credentials" not in client.grant_types:
            raise GrantRefused("unauthorized_client", "This client may not use this grant.")
        granted = granted_scope(client, scope)
        service_token = ServiceToken(
            issuer=self._issuer,
            client_id=str(client.id),
            audiences=granted_audiences(
                client, audiences, granted=granted, issuer=self._issuer, default=self._audiences
            ),
            scope=granted,
            issued_at=now,
            expires_at=now + self._life,
        )
        access_token = service_token.sign(self._keys.signing_key(now))
        ACCESS_TOKENS_ISSUED["client_credentials"].inc()
        return IssuedServiceToken(access_token, whole_seconds(now, service_token.expires_at), scopes.join(granted))


def granted_scope(client: Client, asked: str | None) -> frozenset[str]:
    """RFC 6749 §3.3. Raises GrantRefused."""
    granted = scopes.grantable(asked, client.scope)
    if asked is not None and granted != scopes.split(asked):
        raise GrantRefused("invalid_scope", "This client may not have every scope that it asked for.")
    return granted


def granted_audiences(
    client: Client, asked: Sequence[str], *, granted: frozenset[str], issuer: str, default: tuple[str, ...]
) -> tuple[str, ...]:
    """RFC 8707 §2. `default`: what a client without audiences of its own may have. Raises GrantRefused."""
    # Privileged scopes are for this service alone, whatever the client's audiences are.
    allowed = (issuer,) if any(map(scopes.is_privileged, granted)) else audiences_of(client, default=default)
    if not set(asked) <= set(allowed):
        raise GrantRefused("invalid_target", "This client may not have a token for every audience that it asked for.")
    return tuple(name for name in allowed if name in asked) if asked else allowed


def audiences_of(client: Client, *, default: tuple[str, ...]) -> tuple[str, ...]:
    """Whom the tokens of a client may be for."""
    return client.audiences or default
