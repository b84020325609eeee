"""Authlib and joserfc, as their documentation uses them, accept this service."""

from typing import Any

import httpx2
import pytest
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.interop.conftest import Issuer

_METHODS = ("client_secret_basic", "client_secret_post")


@pytest.fixture
def metadata(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")  # the issuer is on loopback
    document: dict[str, Any] = httpx2.get(issuer.metadata_url).json()
    return document


def test_authlib_finds_nothing_wrong_with_the_metadata(issuer: Issuer, metadata: dict[str, Any]) -> None:
    checked = AuthorizationServerMetadata(metadata)
    # It wants at least one response type; without an authorization endpoint there is none to name (RFC 8414 §2).
    for name in set(checked.REGISTRY_KEYS) - {"response_types_supported"}:
        getattr(checked, f"validate_{name}")()
    assert checked.issuer == issuer.url


@pytest.mark.parametrize("method", _METHODS)
def test_authlib_gets_introspects_and_revokes_a_service_token(
    issuer: Issuer, metadata: dict[str, Any], method: str
) -> None:
    with OAuth2Session(*issuer.client.basic, token_endpoint_auth_method=method, scope="orders:read") as session:
        token = session.fetch_token(metadata["token_endpoint"], grant_type="client_credentials", audience="stock")
        assert (token["token_type"], token["scope"]) == ("Bearer", "orders:read")
        assert _claims(metadata, token["access_token"], audience="stock")["sub"] == issuer.client.client_id
        found = session.introspect_token(metadata["introspection_endpoint"], token=token["access_token"])
        assert found.json()["active"] is True
        assert session.revoke_token(metadata["revocation_endpoint"], token=token["access_token"]).status_code == 200
        found = session.introspect_token(
            metadata["introspection_endpoint"], token=token["access_token"], token_type_hint="refresh_token"
        )
        assert found.json() == {"active": False}


@pytest.mark.parametrize("method", _METHODS)
def test_authlib_is_told_what_is_refused(issuer: Issuer, metadata: dict[str, Any], method: str) -> None:
    client_id, client_secret = issuer.client.basic
    for secret, scope, code in (("wrong", "orders:read", "invalid_client"), (client_secret, "x", "invalid_scope")):
        with (
            OAuth2Session(client_id, secret, token_endpoint_auth_method=method, scope=scope) as session,
            pytest.raises(OAuthError, match=code),
        ):
            session.fetch_token(metadata["token_endpoint"], grant_type="client_credentials")


def test_authlib_refreshes_and_revokes_a_session_as_the_public_client(issuer: Issuer, metadata: dict[str, Any]) -> None:
    user = issuer.register()
    with OAuth2Session("web", token_endpoint_auth_method="none") as session:
        token = session.refresh_token(metadata["token_endpoint"], refresh_token=user.refresh_token)
        claims = _claims(metadata, token["access_token"], audience="orders")
        assert (claims["sub"], claims["client_id"]) == (user.id, "web")
        revoked = session.revoke_token(
            metadata["revocation_endpoint"], token=token["refresh_token"], token_type_hint="refresh_token"
        )
        assert revoked.status_code == 200
        with pytest.raises(OAuthError, match="invalid_grant"):
            session.refresh_token(metadata["token_endpoint"], refresh_token=token["refresh_token"])


def _claims(metadata: dict[str, Any], access_token: str, *, audience: str) -> dict[str, Any]:
    """As joserfc reads them, with the published keys."""
    keys = KeySet.import_key_set(httpx2.get(metadata["jwks_uri"]).json())
    token = jwt.decode(access_token, keys, algorithms=["RS256"])
    assert token.header["typ"] == "at+jwt"
    registry = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": metadata["issuer"]},
        aud={"essential": True, "value": audience},
        exp={"essential": True},
        sub={"essential": True},
        jti={"essential": True},
    )
    registry.validate(token.claims)
    claims: dict[str, Any] = token.claims
    return claims
