"""The user as a token speaks of them: identity, names for display, and the scopes they hold now."""

from dataclasses import dataclass, field
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Subject:
    """A user at one moment. `held_scopes` are the default ones and those granted to this user."""

    id: UUID
    username: str = field(repr=False)
    email: str = field(repr=False)
    held_scopes: frozenset[str]
