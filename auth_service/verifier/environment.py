"""The settings of a verifier in the environment: what each means, and what is wrong with one, by its name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from auth_service.verifier.issuer_client import checked_issuer


def verifier_options(environment: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of `Verifier`. Raises ValueError, which names the variable that is missing or wrong."""

    def value(name: str) -> str:
        return environment.get(name, "").strip()

    for name in ("AUTH_ISSUER", "AUTH_AUDIENCE"):
        if not value(name):
            raise ValueError(f"{name} is not set")
    try:
        issuer = checked_issuer(value("AUTH_ISSUER"))
    except ValueError as exc:
        raise ValueError(f"AUTH_ISSUER: {exc}") from None
    audience = [part.strip() for part in value("AUTH_AUDIENCE").split(",")]
    if not all(audience):
        raise ValueError("AUTH_AUDIENCE: a name is empty")
    client_id, client_secret = value("AUTH_CLIENT_ID"), value("AUTH_CLIENT_SECRET")
    secret_file = value("AUTH_CLIENT_SECRET_FILE")
    if secret_file:
        if client_secret:
            raise ValueError("AUTH_CLIENT_SECRET is given twice: set either it or AUTH_CLIENT_SECRET_FILE")
        client_secret = _content(secret_file)
    if bool(client_id) != bool(client_secret):
        raise ValueError("AUTH_CLIENT_ID and AUTH_CLIENT_SECRET belong together: one of them is not set")
    return {
        "issuer": issuer,
        "audience": audience,
        "client_id": client_id or None,
        "client_secret": client_secret or None,
    }


def _content(file: str) -> str:
    try:
        content = Path(file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ValueError(f"AUTH_CLIENT_SECRET_FILE: it cannot be read ({type(exc).__name__})") from None
    if not content:
        raise ValueError("AUTH_CLIENT_SECRET_FILE: it is empty")
    return content
