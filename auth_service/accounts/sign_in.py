"""Signing in: register and login, each of which ends in a new session with its tokens."""

from datetime import datetime

from auth_service import audit
from auth_service.accounts import names
from auth_service.accounts.account import Account
from auth_service.accounts.name_questions import NameQuestions
from auth_service.accounts.names import Name
from auth_service.accounts.password_rules import PasswordRules
from auth_service.accounts.passwords import PasswordHasher
from auth_service.accounts.throttle import LOGIN, REGISTRATION, Throttle
from auth_service.accounts.users import Users
from auth_service.audit import Action, Actor
from auth_service.errors import InvalidCredentials, NotFound, ServiceError, Taken, TooManyAttempts
from auth_service.metrics import LOGINS
from auth_service.sessions.ending import Ended, SessionEnding
from auth_service.sessions.issuing import Grant, IssuedTokens, TokenIssuer
from auth_service.sessions.session import Opening
from auth_service.sessions.store import SessionStore
from auth_service.stores.database import Database, Statements, read_time

_ATTEMPTS = 3
_ACTIONS: dict[Grant, Action] = {"register": "user.registered", "login": "user.login"}
_OUTCOMES: dict[type[ServiceError], str] = {InvalidCredentials: "refused", TooManyAttempts: "throttled"}


class SignIn:
    """Opens sessions for people who register or prove who they are. Raises Unavailable when a store is away."""

    def __init__(
        self,
        *,
        database: Database,
        users: Users,
        passwords: PasswordHasher,
        password_rules: PasswordRules,
        sessions: SessionStore,
        ending: SessionEnding,
        throttle: Throttle,
        name_questions: NameQuestions,
        tokens: TokenIssuer,
    ) -> None:
        self._database = database
        self._users = users
        self._passwords = passwords
        self._password_rules = password_rules
        self._sessions = sessions
        self._ending = ending
        self._throttle = throttle
        self._name_questions = name_questions
        self._tokens = tokens

    async def register(self, *, username: Name, email: Name, password: str, opening: Opening) -> IssuedTokens:
        """Make an account and sign it in. Raises WeakPassword, Taken, TooManyAttempts."""
        address = opening.source.ip
        # Redis is asked here: a session whose refreshes could not be tracked is not opened.
        await self._throttle.count(REGISTRATION, address=address)
        await self._password_rules.require(password, username=username.text, email=email.text)
        async with self._name_questions.asked(username, email, address=address):
            return await self._register(username, email, password, opening)

    async def _register(self, username: Name, email: Name, password: str, opening: Opening) -> IssuedTokens:
        await self._refuse_taken(username, email)
        password_hash = await self._passwords.hash(password)
        async with self._database.transaction() as transaction:
            now = await read_time(transaction, self._database.clock)
            account = await self._users.create(
                transaction, username=username, email=email, password_hash=password_hash, now=now
            )
            tokens, replaced = await self._open(transaction, account, opening, now=now, grant="register")
        await self._ending.announce(replaced)
        return tokens

    async def login(self, *, username: str | None, email: str | None, password: str, opening: Opening) -> IssuedTokens:
        """Sign in by user name or e-mail address. Raises InvalidCredentials: the same for unknown, wrong, disabled.

        Raises TooManyAttempts too, before it is known whether there is such an account.
        """
        name = names.key(username if username is not None else email or "")
        address = opening.source.ip
        try:
            # Redis is asked here: a session whose refreshes could not be tracked is not opened.
            async with self._throttle.attempt(
                LOGIN,
                address=address,
                account=name,
                is_known_here=lambda: self._users.is_signed_in_from(address, username=username, email=email),
            ):
                tokens = await self._login(username, email, password, opening)
        except ServiceError as exc:
            LOGINS.labels(outcome=_OUTCOMES.get(type(exc), "unavailable")).inc()
            raise
        LOGINS.labels(outcome="success").inc()
        return tokens

    async def _login(self, username: str | None, email: str | None, password: str, opening: Opening) -> IssuedTokens:
        for _attempt in range(_ATTEMPTS):
            account = await self._users.find(username=username, email=email)
            try:
                opened = await self._attempt(account, password, opening)
            except InvalidCredentials as exc:
                await self._note_failure(account, exc, opening)
                raise
            if opened is not None:
                tokens, replaced = opened
                await self._ending.announce(replaced)
                return tokens
        refusal = InvalidCredentials("the password kept changing")
        await self._note_failure(account, refusal, opening)
        raise refusal

    async def _attempt(
        self, account: Account | None, password: str, opening: Opening
    ) -> tuple[IssuedTokens, Ended] | None:
        """What `_open` answers, or None if the stored hash changed between the check and the opening."""
        check = await self._passwords.check(password, account.password_hash if account else None)
        if account is None:
            raise InvalidCredentials("unknown")
        if not check.right or account.disabled_at is not None:
            raise InvalidCredentials("disabled" if check.right else "wrong")
        better_hash = await self._passwords.hash(password) if check.outdated else None
        async with self._database.transaction() as transaction:
            try:
                locked, now = await self._users.lock(transaction, account.id)
            except NotFound:
                raise InvalidCredentials("deleted") from None
            if locked.password_hash != account.password_hash:
                return None
            if locked.disabled_at is not None:
                raise InvalidCredentials("disabled")
            # The row is locked and still holds the hash that was checked: a better one cannot restore an old password.
            await transaction.rows(
                "UPDATE users SET last_login_at = $2, password_hash = coalesce($3, password_hash) WHERE id = $1",
                account.id,
                now,
                better_hash,
            )
            return await self._open(transaction, locked, opening, now=now, grant="login")

    async def _open(
        self, transaction: Statements, account: Account, opening: Opening, *, now: datetime, grant: Grant
    ) -> tuple[IssuedTokens, Ended]:
        """The new session's tokens, and the sessions it replaces."""
        subject = self._users.subject(account)
        replaced = await self._ending.end_within(transaction, opening.replaces, reason="replaced", now=now)
        session = await self._sessions.open(transaction, subject, opening, now=now)
        await audit.record(
            transaction,
            _ACTIONS[grant],
            by=Actor("user", str(account.id), opening.source),
            now=now,
            target=("user", str(account.id)),
            session=str(session.id),
            replaced=[str(session_id) for session_id in replaced.owners] or None,
        )
        permit = self._tokens.permit(session, subject, now=now)
        return self._tokens.issue(permit, generation=1, grant=grant), replaced

    async def _note_failure(self, account: Account | None, refusal: InvalidCredentials, opening: Opening) -> None:
        """Record a failed login: in the same steps for a known and an unknown account, which take as long."""
        await audit.record(
            self._database,
            "user.login_failed",
            by=Actor("anonymous", source=opening.source),
            now=await self._database.now(),
            target=("user", str(account.id)) if account else None,
            reason=refusal.reason,
        )

    async def _refuse_taken(self, username: Name, email: Name) -> None:
        """Spare the hash for a name that is plainly taken; the unique index has the last word."""
        if await self._users.find(email=email.text) is not None:
            raise Taken("email")
        if await self._users.find(username=username.text) is not None:
            raise Taken("username")
