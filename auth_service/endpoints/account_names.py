"""User names and e-mail addresses as they come in a body: both are looked at, so one answer names all that is wrong."""

from auth_service.accounts import names
from auth_service.accounts.names import Name, NameRefused
from auth_service.errors import InvalidRequest


def given_names(username: str | None, email: str | None) -> tuple[Name | None, Name | None]:
    """What is given of the two. Raises InvalidRequest, which names each that cannot be used."""
    wrong: list[tuple[str, str]] = []
    found: list[Name | None] = []
    for field, check, text in (("username", names.username, username), ("email", names.email, email)):
        try:
            found.append(None if text is None else check(text))
        except NameRefused as exc:
            wrong.append((field, str(exc)))
    if wrong:
        fields = ", ".join(field for field, _ in wrong)
        raise InvalidRequest(f"These fields are wrong: {fields}.", fields=tuple(wrong))
    return found[0], found[1]


def required_names(username: str, email: str) -> tuple[Name, Name]:
    """Both. Raises InvalidRequest."""
    name, address = given_names(username, email)
    assert name is not None, "given_names answers what it is given"
    assert address is not None, "given_names answers what it is given"
    return name, address
