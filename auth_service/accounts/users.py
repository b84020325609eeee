"""The `users` table, and what changing an account does to its sessions. Proving who one is is `sign_in.py`'s.

Every change takes who makes it (`by`) and leaves an event in the audit log, unless nothing is different after it.

The order in every change is: the user's row first, then the sessions. A login holds the row while it opens a session,
so a change either waits for that session and ends it, or is seen by the login.
"""

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID, uuid4

import asyncpg

from auth_service import audit
from auth_service.accounts import names
from auth_service.accounts.account import Account, Change, differences
from auth_service.accounts.names import Name
from auth_service.accounts.passwords import PasswordHasher
from auth_service.accounts.throttle import NEW_PASSWORD, PASSWORD_CHECK, RENAMING, Throttle
from auth_service.address_block import block_of
from auth_service.audit import Action, Actor
from auth_service.errors import InvalidCredentials, InvalidRequest, NotFound, Taken
from auth_service.sessions.ending import Ended, SessionEnding
from auth_service.sessions.store import SessionStore
from auth_service.stores.database import Database, Row, Statements, read_time
from auth_service.tokens import scope as scopes
from auth_service.tokens.subject import Subject

_ATTEMPTS = 3


class Users:
    """Reads and changes accounts. Every method raises Unavailable when PostgreSQL is away."""

    def __init__(
        self,
        database: Database,
        sessions: SessionStore,
        ending: SessionEnding,
        passwords: PasswordHasher,
        throttle: Throttle,
    ) -> None:
        self._database = database
        self._sessions = sessions
        self._ending = ending
        self._passwords = passwords
        self._throttle = throttle

    def subject(self, account: Account) -> Subject:
        """The account as a token speaks of it."""
        held = self._sessions.held_scopes(scopes.join(account.granted_scopes))
        return Subject(account.id, account.username, account.email, held)

    async def find(self, *, username: str | None = None, email: str | None = None) -> Account | None:
        """The account of that name or address, however it is spelt."""
        column, key = _name_column(username, email)
        row = await self._database.row(f"SELECT * FROM users WHERE {column} = $1", key)  # noqa: S608 — one of two constants
        return Account.of(row) if row else None

    async def is_signed_in_from(self, address: str | None, *, username: str | None, email: str | None) -> bool:
        """Whether the account of that name has a session that was opened or last used at this address, and is live or
        was ended by its owner: a log-out must not take away what the sign-in has shown.

        One statement, the same for an account that there is not.
        """
        if address is None:
            return False
        column, key = _name_column(username, email)
        row = await self._database.row(
            "SELECT clock_timestamp() AS now, max(expires_at) AS until FROM sessions"  # noqa: S608 — one of two constants
            f" WHERE user_id = (SELECT id FROM users WHERE {column} = $1)"
            " AND (revoked_at IS NULL OR revoked_reason IN ('logout', 'replaced'))"
            " AND (ip::inet <<= $2::text::inet OR last_ip::inet <<= $2::text::inet)",
            key,
            block_of(address),
        )
        return row is not None and row["until"] is not None and row["until"] > self._now(row)

    async def locate(self, text: str) -> Account:
        """The account that a person means by an id, an e-mail address or a user name. Raises NotFound."""
        # An id first: anybody may register a user name that is somebody else's id.
        with contextlib.suppress(ValueError, NotFound):
            return await self.get(UUID(text))
        account = await (self.find(email=text) if "@" in text else self.find(username=text))
        if account is None:
            raise NotFound("no such user")
        return account

    async def get(self, user_id: UUID) -> Account:
        """The account with this id. Raises NotFound."""
        row = await self._database.row("SELECT * FROM users WHERE id = $1", user_id)
        if row is None:
            raise NotFound("no such user")
        return Account.of(row)

    async def page(self, *, search: str = "", after: str = "", limit: int = 100) -> Sequence[Account]:
        """Accounts in the order of their user names, from the one after `after`, that contain `search`."""
        rows = await self._database.rows(
            "SELECT * FROM users WHERE (strpos(username_key, $1) > 0 OR strpos(email_key, $1) > 0)"
            " AND username_key > $2 ORDER BY username_key LIMIT $3",
            names.key(search),
            names.key(after),
            limit,
        )
        return [Account.of(row) for row in rows]

    async def create(
        self,
        transaction: Statements,
        *,
        username: Name,
        email: Name,
        password_hash: str,
        now: datetime,
        granted_scopes: Iterable[str] = (),
    ) -> Account:
        """Add an account, inside the transaction of the caller, who records the event. Raises Taken."""
        account = Account(uuid4(), username.text, email.text, password_hash, frozenset(granted_scopes), now, None, None)
        try:
            await transaction.rows(
                "INSERT INTO users (id, username, username_key, email, email_key, password_hash, granted_scopes,"
                " created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                account.id,
                username.text,
                username.key,
                email.text,
                email.key,
                password_hash,
                scopes.join(account.granted_scopes),
                now,
            )
        except asyncpg.UniqueViolationError as exc:
            raise _taken(exc) from None
        return account

    async def add(
        self, *, username: Name, email: Name, password: str, granted_scopes: Iterable[str] = (), by: Actor
    ) -> Account:
        """Add an account with a password, without opening a session. Raises Taken."""
        password_hash = await self._passwords.hash(password)
        async with self._database.transaction() as transaction:
            now = await read_time(transaction, self._database.clock)
            account = await self.create(
                transaction,
                username=username,
                email=email,
                password_hash=password_hash,
                now=now,
                granted_scopes=granted_scopes,
            )
            granted = sorted(account.granted_scopes) or None
            await audit.record(transaction, "user.added", by=by, now=now, target=_target(account.id), granted=granted)
            return account

    async def import_batch(self, accounts: Sequence[tuple[Name, Name, str, frozenset[str]]], *, by: Actor) -> int:
        """Add accounts with the hashes they have: (user name, e-mail, hash, scopes) each; answers how many were added.

        One whose name or address exists is skipped.
        """
        async with self._database.transaction() as transaction:
            now = await read_time(transaction, self._database.clock)
            rows = await transaction.rows(
                "INSERT INTO users (id, username, username_key, email, email_key, password_hash, granted_scopes,"
                " created_at) SELECT *, $8::timestamptz FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[],"
                " $5::text[], $6::text[], $7::text[]) ON CONFLICT DO NOTHING RETURNING id",
                [uuid4() for _ in accounts],
                [username.text for username, *_ in accounts],
                [username.key for username, *_ in accounts],
                [email.text for _, email, *_ in accounts],
                [email.key for _, email, *_ in accounts],
                [password_hash for *_, password_hash, _ in accounts],
                [scopes.join(granted) for *_, granted in accounts],
                now,
            )
            ids = [str(row["id"]) for row in rows]
            await audit.record_each(transaction, "user.imported", by=by, now=now, kind="user", ids=ids)
        return len(rows)

    async def lock(self, transaction: Statements, user_id: UUID) -> tuple[Account, datetime]:
        """The account, locked against every change and every login until the transaction ends, and the time.

        Raises NotFound.
        """
        # FOR NO KEY UPDATE and not FOR SHARE: two logins of one user that both share the row and then both write it
        # would wait for each other for ever.
        row = await transaction.row(
            "SELECT *, clock_timestamp() AS now FROM users WHERE id = $1 FOR NO KEY UPDATE", user_id
        )
        if row is None:
            raise NotFound("no such user")
        return Account.of(row), self._now(row)

    async def change(self, user_id: UUID, change: Change, *, by: Actor) -> Account:
        """Change an account in one step; answers it as changed. Raises NotFound, Taken.

        A new password and disabling end every session. A scope that is taken away is gone at the next refresh; sessions
        that were ended stay ended when the account is enabled.
        """
        if change.ends_sessions:
            await self._ending.thin_out(user_id, reason=change.ends_sessions, by=by)
        async with self._database.transaction() as transaction:
            account, now = await self.lock(transaction, user_id)
            changed, ended = await self._apply(transaction, account, change, by=by, now=now)
        await self._ending.announce(ended)
        return changed

    async def rename(
        self, user_id: UUID, *, username: Name | None, email: Name | None, verified_hash: str | None = None, by: Actor
    ) -> Subject:
        """Change what is given; answers the user as changed.

        `verified_hash`: only if the password is still the one that was checked. Raises Taken, InvalidCredentials,
        TooManyAttempts.
        """
        async with (
            # Like a registration, it tells which names are taken.
            self._throttle.attempt(RENAMING, address=by.source.ip, account=str(user_id)),
            self._database.transaction() as transaction,
        ):
            try:
                account, now = await self.lock(transaction, user_id)
            except NotFound:
                raise InvalidCredentials("deleted meanwhile") from None
            if verified_hash is not None and account.password_hash != verified_hash:
                raise InvalidCredentials("its password was changed meanwhile")
            changed, _ = await self._apply(transaction, account, Change(username, email), by=by, now=now)
        return self.subject(changed)

    async def require_password(self, user_id: UUID, password: str, *, by: Actor) -> str:
        """The stored hash, if `password` is the user's. Raises InvalidCredentials, TooManyAttempts."""
        async with self._throttle.attempt(PASSWORD_CHECK, address=by.source.ip, account=str(user_id)):
            return await self._verified_hash(user_id, password)

    async def _verified_hash(self, user_id: UUID, password: str) -> str:
        row = await self._database.row("SELECT password_hash FROM users WHERE id = $1", user_id)
        stored_hash: str | None = row["password_hash"] if row else None
        check = await self._passwords.check(password, stored_hash)
        if stored_hash is None or not check.right:
            raise InvalidCredentials("the current password is wrong")
        return stored_hash

    async def change_password(
        self,
        user_id: UUID,
        *,
        current: str,
        new: str,
        judge: Callable[[], Awaitable[None]],
        keep_session: UUID,
        by: Actor,
    ) -> None:
        """Set a new password and end every session but `keep_session`.

        `judge` raises WeakPassword; it is slow work, so there is no more of it at once than of attempts. Raises
        InvalidCredentials, TooManyAttempts too.
        """
        # Right or wrong, weak or not: to judge and to hash is work, and a success would never be counted.
        await self._throttle.count(NEW_PASSWORD, address=by.source.ip, account=str(user_id))
        async with self._throttle.attempt(PASSWORD_CHECK, address=by.source.ip, account=str(user_id)):
            await judge()
            await self._change_password(user_id, current=current, new=new, keep_session=keep_session, by=by)

    async def _change_password(self, user_id: UUID, *, current: str, new: str, keep_session: UUID, by: Actor) -> None:
        change = Change(password_hash=await self._passwords.hash(new))
        for _attempt in range(_ATTEMPTS):
            verified_hash = await self._verified_hash(user_id, current)
            await self._ending.thin_out(user_id, reason="password_change", by=by, keep=keep_session)
            async with self._database.transaction() as transaction:
                account, now = await self.lock(transaction, user_id)
                if account.password_hash != verified_hash:
                    continue  # a login has made a better hash of it, or it is another password now
                _, ended = await self._apply(transaction, account, change, by=by, now=now, keep=keep_session)
            await self._ending.announce(ended)
            return
        raise InvalidCredentials("the password kept changing")

    async def set_password(self, user_id: UUID, new: str, *, by: Actor) -> None:
        """Set a new password without knowing the old one, and end every session. Raises NotFound."""
        await self.change(user_id, Change(password_hash=await self._passwords.hash(new)), by=by)

    async def disable(self, user_id: UUID, *, by: Actor) -> None:
        """Refuse every login and end every session. Raises NotFound."""
        await self.change(user_id, Change(disabled=True), by=by)

    async def enable(self, user_id: UUID, *, by: Actor) -> None:
        """Allow logins again; sessions that were ended stay ended. Raises NotFound."""
        await self.change(user_id, Change(disabled=False), by=by)

    async def grant(
        self, user_id: UUID, *, add: Iterable[str] = (), remove: Iterable[str] = (), by: Actor
    ) -> frozenset[str]:
        """Grant and take away scopes; answers those the user has after it. Raises NotFound, InvalidRequest."""
        async with self._database.transaction() as transaction:
            account, now = await self.lock(transaction, user_id)
            granted = (account.granted_scopes | set(add)) - set(remove)
            # Taking some away is always allowed, however many there are.
            if granted - account.granted_scopes and len(scopes.join(granted)) > scopes.MAX_LENGTH:
                raise InvalidRequest(
                    "The scopes are too long.",
                    fields=(("granted_scopes", f"must have at most {scopes.MAX_LENGTH} characters together"),),
                )
            await self._apply(transaction, account, Change(granted_scopes=granted), by=by, now=now)
        return granted

    async def delete(self, user_id: UUID, *, by: Actor) -> None:
        """Remove the account and end every session. Raises NotFound."""
        await self._ending.thin_out(user_id, reason="deleted", by=by)
        async with self._database.transaction() as transaction:
            _account, now = await self.lock(transaction, user_id)
            ended = await self._ending.end_all_of_user(transaction, user_id, reason="deleted", now=now)
            await transaction.rows("DELETE FROM users WHERE id = $1", user_id)
            count = len(ended.owners)
            await audit.record(transaction, "user.deleted", by=by, now=now, target=_target(user_id), sessions=count)
        await self._ending.announce(ended)

    async def end_sessions(self, user_id: UUID, *, reason: Literal["logout", "admin"], by: Actor) -> int:
        """End every session of a user; answers how many. Raises NotFound."""
        thinned = await self._ending.thin_out(user_id, reason=reason, by=by)
        async with self._database.transaction() as transaction:
            _account, now = await self.lock(transaction, user_id)
            ended = await self._ending.end_all_of_user(transaction, user_id, reason=reason, now=now)
            count = len(ended.owners)
            if count:
                action: Action = "session.logout" if reason == "logout" else "session.revoked"
                await audit.record(transaction, action, by=by, now=now, target=_target(user_id), sessions=count)
        await self._ending.announce(ended)
        return thinned + count

    async def _apply(
        self,
        transaction: Statements,
        account: Account,
        change: Change,
        *,
        by: Actor,
        now: datetime,
        keep: UUID | None = None,
    ) -> tuple[Account, Ended]:
        """Write `change` to the locked `account`: the account as changed, and the sessions that ended with it.

        Raises Taken.
        """
        changed = change.applied(account, now=now)
        try:
            await transaction.rows(
                "UPDATE users SET username = $2, username_key = coalesce($3, username_key), email = $4,"
                " email_key = coalesce($5, email_key), password_hash = $6, disabled_at = $7, granted_scopes = $8"
                " WHERE id = $1",
                account.id,
                changed.username,
                change.username and change.username.key,
                changed.email,
                change.email and change.email.key,
                changed.password_hash,
                changed.disabled_at,
                scopes.join(changed.granted_scopes),
            )
        except asyncpg.UniqueViolationError as exc:
            raise _taken(exc) from None
        ended = Ended((), (), {})
        if change.ends_sessions:
            ended = await self._ending.end_all_of_user(
                transaction, account.id, reason=change.ends_sessions, now=now, keep=keep
            )
        target, count = _target(account.id), len(ended.owners)
        if change.password_hash is not None:
            action: Action = "user.password_set" if keep is None else "user.password_changed"
            await audit.record(transaction, action, by=by, now=now, target=target, sessions=count)
        for action, details in differences(account, changed):
            await audit.record(transaction, action, by=by, now=now, target=target, **details)
        return changed, ended

    def _now(self, row: Row) -> datetime:
        return self._database.clock.now(row["now"])


def _name_column(username: str | None, email: str | None) -> tuple[Literal["username_key", "email_key"], str]:
    if username is not None:
        return "username_key", names.key(username)
    return "email_key", names.key(email or "")


def _target(user_id: UUID) -> tuple[Literal["user"], str]:
    return "user", str(user_id)


def _taken(exc: asyncpg.UniqueViolationError) -> Taken:
    return Taken("email" if exc.constraint_name == "users_email_key_key" else "username")
