"""An account, and what changing it amounts to. Reading and writing it is `users.py`'s."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Self
from uuid import UUID

from auth_service.accounts.names import Name
from auth_service.audit import Action
from auth_service.sessions.session import EndReason
from auth_service.stores.database import Row
from auth_service.tokens import scope as scopes


@dataclass(frozen=True, slots=True)
class Account:
    """A row of `users`."""

    id: UUID
    username: str = field(repr=False)
    email: str = field(repr=False)
    password_hash: str = field(repr=False)
    granted_scopes: frozenset[str]
    created_at: datetime
    last_login_at: datetime | None
    disabled_at: datetime | None

    @classmethod
    def of(cls, row: Row) -> Self:
        return cls(
            id=row["id"],
            username=row["username"],
            email=row["email"],
            password_hash=row["password_hash"],
            granted_scopes=scopes.split(row["granted_scopes"]),
            created_at=row["created_at"],
            last_login_at=row["last_login_at"],
            disabled_at=row["disabled_at"],
        )


@dataclass(frozen=True, slots=True)
class Change:
    """What is to become of an account; None: as it is. `granted_scopes` replaces all that were granted."""

    username: Name | None = None
    email: Name | None = None
    password_hash: str | None = field(default=None, repr=False)
    disabled: bool | None = None
    granted_scopes: frozenset[str] | None = None

    @property
    def ends_sessions(self) -> EndReason | None:
        """Why every session ends with this change, if it does."""
        if self.disabled:
            return "disabled"
        return None if self.password_hash is None else "password_change"

    def applied(self, account: Account, *, now: datetime) -> Account:
        """`account` after this change."""
        disabled_at = account.disabled_at if self.disabled is None else (account.disabled_at or now)
        return replace(
            account,
            username=self.username.text if self.username else account.username,
            email=self.email.text if self.email else account.email,
            password_hash=self.password_hash or account.password_hash,
            disabled_at=None if self.disabled is False else disabled_at,
            granted_scopes=account.granted_scopes if self.granted_scopes is None else self.granted_scopes,
        )


def differences(before: Account, after: Account) -> Iterator[tuple[Action, dict[str, list[str]]]]:
    """The events that a change leaves, with their details; none where nothing is different. A changed password is not
    among them: whether its owner or an administrator set it, the caller knows."""
    renamed = [name for name in ("username", "email") if getattr(before, name) != getattr(after, name)]
    if renamed:
        yield "user.renamed", {"fields": renamed}
    if (before.disabled_at is None) != (after.disabled_at is None):
        yield "user.enabled" if after.disabled_at is None else "user.disabled", {}
    if before.granted_scopes != after.granted_scopes:
        yield (
            "user.granted",
            {
                "added": sorted(after.granted_scopes - before.granted_scopes),
                "removed": sorted(before.granted_scopes - after.granted_scopes),
            },
        )
