"""`auth-service users import`: accounts from another system, with the password hashes they have.

What the rows of a file are is `import_file.py`'s; which hashes are kept is `accounts/imported_hash.py`'s.
"""

import io
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal

import click

from auth_service.accounts import names
from auth_service.accounts.imported_hash import ImportedHashRefused, imported_hash
from auth_service.accounts.names import Name, NameRefused
from auth_service.audit import OPERATOR
from auth_service.cli.import_file import FIELDS, FileRefused, Row, rows_of
from auth_service.cli.output import show_json
from auth_service.cli.running import with_parts
from auth_service.errors import Unavailable
from auth_service.parts import Parts
from auth_service.tokens import scope as scopes

_BATCH = 500  # rows in one transaction
_MOST_SHOWN = 100  # bad rows, to people

_Account = tuple[Name, Name, str, frozenset[str]]
"""User name, e-mail address, hash and granted scopes."""


class _BadRow(Exception):
    """A row that cannot be imported; the text says why."""


@click.command("import", short_help="Import accounts with the password hashes they have.")
@click.argument("file", type=click.File("rb"))
@click.option(
    "--format",
    "layout",
    type=click.Choice(["auto", "jsonl", "csv"]),
    default="auto",
    show_default=True,
    help="What FILE is; auto goes by its name, or else by how it begins.",
)
@click.option("--dry-run", is_flag=True, help="Read and check everything; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def import_users(file: BinaryIO, layout: Literal["auto", "jsonl", "csv"], dry_run: bool, as_json: bool) -> None:
    """Import accounts from FILE, or from standard input if it is -.

    FILE is CSV with a header, or JSON lines, in UTF-8. Fields: username, email, password_hash, and optionally scopes
    (separated by spaces).

    Hashes of Django (pbkdf2_sha256$..., argon2$...) and of passlib ($pbkdf2-sha256$...) and plain argon2 are kept; each
    is hashed anew with argon2id at its first login.

    Accounts that exist are skipped: the same file can be imported again. Bad rows are reported by line and the good
    ones are kept; the exit code is 1 if any row was bad.
    """
    run = _Import(dry_run=dry_run)
    try:
        whole, size = _at_hand(file)
        rows = rows_of(whole, layout, name=file.name)
        with_parts(lambda parts: run.read(parts, rows, whole, size))
    except FileRefused as exc:
        raise click.ClickException(f"{file.name}: {exc}") from None
    except KeyboardInterrupt:
        raise click.ClickException(f"stopped. {run.so_far}") from None
    if as_json:
        show_json(run.summary)
    else:
        for bad in run.bad[:_MOST_SHOWN]:
            click.echo(f"{file.name}:{bad['line']}: {bad['reason']}", err=True)
        if len(run.bad) > _MOST_SHOWN:
            click.echo(f"... and {len(run.bad) - _MOST_SHOWN} more: --json names them all", err=True)
        verb = "would be imported" if dry_run else "imported"
        click.echo(f"{run.imported} {verb}, {run.skipped} skipped because they exist, {len(run.bad)} bad.")
    if run.bad:
        raise SystemExit(1)


@dataclass(slots=True)
class _Import:
    """One run, and what it has done so far."""

    dry_run: bool
    imported: int = 0
    skipped: int = 0
    bad: list[dict[str, Any]] = field(default_factory=list)
    _line: int = 0
    _seen: set[str] = field(default_factory=set)
    """Of a dry run: the keys of those that would be there by now."""

    @property
    def summary(self) -> dict[str, Any]:
        return {"imported": self.imported, "skipped": self.skipped, "bad": self.bad, "dry_run": self.dry_run}

    @property
    def so_far(self) -> str:
        if self.dry_run:
            return "Nothing was written."
        return f"{self.imported} accounts were imported, up to line {self._line}: run it again, and they are skipped."

    async def read(self, parts: Parts, rows: Iterator[Row], file: BinaryIO, size: int) -> None:
        """Import what can be of `rows`, which come from `file`, of so many bytes."""
        hidden = not sys.stderr.isatty()
        with click.progressbar(length=size, label="Importing", file=sys.stderr, hidden=hidden) as bar:
            reached = 0
            for batch in _batches(rows):
                accounts = [account for row in batch if (account := self._account(row)) is not None]
                try:
                    written = await (self._count(parts, accounts) if self.dry_run else _write(parts, accounts))
                except Unavailable as exc:
                    raise click.ClickException(f"{exc.reason}. {self.so_far}") from None
                self.imported += written
                self.skipped += len(accounts) - written
                self._line = batch[-1].line
                bar.update(file.tell() - reached)
                reached = file.tell()

    def _account(self, row: Row) -> _Account | None:
        try:
            return _checked(row)
        except _BadRow as exc:
            self.bad.append({"line": row.line, "reason": str(exc)})
            return None

    async def _count(self, parts: Parts, accounts: list[_Account]) -> int:
        """How many would be written. Two lines of one name are one account: the first, as if they came one by one."""
        keys = [(username.key, email.key) for username, email, *_ in accounts]
        existing = await parts.database.rows(
            "SELECT username_key, email_key FROM users"
            " WHERE username_key = ANY($1::text[]) OR email_key = ANY($2::text[])",
            [username for username, _ in keys],
            [email for _, email in keys],
        )
        # A user name never holds @ and an address always does: one set is enough for both.
        self._seen.update(key for pair in existing for key in pair)
        count = 0
        for pair in keys:
            if self._seen.isdisjoint(pair):
                self._seen.update(pair)
                count += 1
        return count


async def _write(parts: Parts, accounts: list[_Account]) -> int:
    return await parts.users.import_batch(accounts, by=OPERATOR) if accounts else 0


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _checked(row: Row) -> _Account:
    if isinstance(row.fields, str):
        raise _BadRow(row.fields)
    if not row.fields.keys() <= FIELDS:
        raise _BadRow(f"has a member that is not one of {', '.join(sorted(FIELDS))}")
    values = {}
    for name in ("username", "email", "password_hash"):
        value = row.fields.get(name)
        if value is None or value == "":
            raise _BadRow(f"{name} is missing")
        if not isinstance(value, str):
            raise _BadRow(f"{name} must be text")
        values[name] = value
    granted = row.fields.get("scopes") or ""
    listed = granted.split(" ") if isinstance(granted, str) else granted
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise _BadRow("scopes must be text, separated by spaces")
    held = frozenset(filter(None, listed))
    if not all(map(scopes.is_valid, held)):
        raise _BadRow("scopes must be printable ASCII without quote and backslash, separated by spaces")
    try:
        name = "username"
        username = names.username(values[name])
        name = "email"
        email = names.email(values[name])
        name = "password_hash"
        return username, email, imported_hash(values[name]), held
    except (NameRefused, ImportedHashRefused) as exc:
        raise _BadRow(f"{name} {exc}") from None


def _at_hand(file: BinaryIO) -> tuple[BinaryIO, int]:
    """`file` and its bytes. What comes through a pipe is read to its end first: later Ctrl-C could not end the wait."""
    try:
        found = os.fstat(file.fileno())
    except OSError:
        found = None
    if found is not None and stat.S_ISREG(found.st_mode):
        return file, found.st_size
    content = file.read()
    return io.BytesIO(content), len(content)
