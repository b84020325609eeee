"""Client authentication (RFC 6749 §2.3): `client_secret_basic`, `client_secret_post`; none for the public client."""

import binascii
from base64 import b64decode
from typing import Annotated

from pydantic import Field
from starlette.requests import Request

from auth_service.accounts.clients import AuthenticatedClient, Clients
from auth_service.endpoints.authorization import presented_credentials
from auth_service.endpoints.form import Form, form_decoded
from auth_service.errors import InvalidClient, InvalidRequest

METHODS = ("client_secret_basic", "client_secret_post")


class ClientForm(Form):
    """What a client says of itself in a form, where it does not in the Authorization header."""

    client_id: Annotated[str | None, Field(examples=["0b9b4a0e-7f0c-4d8b-9a51-3f6a2f1c8e57"])] = None
    client_secret: Annotated[str | None, Field(json_schema_extra={"format": "password"})] = None


class ClientAuthentication:
    """Finds out which client sends a request. Raises InvalidClient, InvalidRequest, Unavailable."""

    def __init__(self, *, clients: Clients, public_client_id: str) -> None:
        self._clients = clients
        self.public_client_id = public_client_id

    async def confidential(self, request: Request, form: ClientForm) -> AuthenticatedClient:
        """A client that has proved who it is."""
        authenticated = await self.any(request, form)
        if authenticated is None:
            raise InvalidClient("the public client, which cannot prove who it is")
        return authenticated

    async def any(self, request: Request, form: ClientForm) -> AuthenticatedClient | None:
        """A client that has proved who it is; None for the first-party client, which is public and has no secret."""
        client_id, client_secret = form.client_id, form.client_secret
        basic = _basic_credentials(request)
        if basic is not None:
            client_id, client_secret = basic
            # RFC 6749 §2.3: one method. A client_id beside the header is no second one, if it says the same.
            if form.client_secret is not None or form.client_id not in (None, client_id):
                raise InvalidRequest("The client must authenticate itself in one way.")
        if client_id is None:
            raise InvalidClient("no client named")
        if not client_secret:
            # RFC 6749 §2.3.1: an empty secret is as good as none, wherever it is left out.
            if client_id != self.public_client_id:
                raise InvalidClient("no secret")
            return None
        return await self._clients.authenticate(client_id, client_secret)


def _basic_credentials(request: Request) -> tuple[str, str] | None:
    """Id and secret of the Authorization header; None where there is no such header."""
    presented = presented_credentials(request)
    if presented is None:
        return None
    scheme, credentials = presented
    if scheme != "basic":
        raise InvalidClient("another scheme than Basic")
    try:
        # RFC 6749 §2.3.1: both are form-encoded before they are joined.
        client_id, colon, client_secret = b64decode(credentials, validate=True).partition(b":")
        if not colon:
            raise InvalidClient("no secret")
        return form_decoded(client_id), form_decoded(client_secret)
    except (binascii.Error, ValueError):
        raise InvalidClient("the Authorization header cannot be read") from None
