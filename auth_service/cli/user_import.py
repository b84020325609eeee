"""`auth-service users import`: accounts from another system, with the password hashes they have."""

import csv
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

import click

from auth_service.accounts import names
from auth_service.accounts.imported_hash import ImportedHashRefused, imported_hash
from auth_service.accounts.names import Name, NameRefused
from auth_service.app import Parts
from auth_service.cli.output import show_json
from auth_service.cli.running import with_parts
from auth_service.tokens import scope as scopes

_BATCH = 500
_FIELDS = frozenset({"username", "email", "password_hash", "scopes"})


class _BadRow(Exception):
    """A row that cannot be imported; the text says why."""


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    username: Name
    email: Name
    password_hash: str
    granted_scopes: frozenset[str]


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--format",
    "layout",
    type=click.Choice(["auto", "jsonl", "csv"]),
    default="auto",
    show_default=True,
    help="auto goes by the file's name.",
)
@click.option("--dry-run", is_flag=True, help="Read and check everything; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def import_users(file: Path, layout: str, dry_run: bool, as_json: bool) -> None:
    """Import accounts from FILE: JSON lines, or CSV with a header.

    Fields: username, email, password_hash, and optionally scopes (separated by spaces). Hashes of Django
    (pbkdf2_sha256$..., argon2$...), of passlib (pbkdf2_sha256) and plain argon2id are kept; each is hashed anew with
    argon2id at its first login. Accounts that exist are skipped. Bad rows are reported by line and the good ones kept.
    Exit code 1 if any row was bad.
    """
    kind: Literal["jsonl", "csv"] = (
        "csv" if layout == "csv" or (layout == "auto" and file.suffix == ".csv") else "jsonl"
    )
    size = file.stat().st_size
    summary = with_parts(lambda parts: _import(parts, file, kind, size=size, dry_run=dry_run))
    if as_json:
        show_json(summary)
    else:
        for bad in summary["bad"]:
            click.echo(f"{file}:{bad['line']}: {bad['reason']}", err=True)
        verb = "would be imported" if dry_run else "imported"
        click.echo(f"{summary['imported']} {verb}, {summary['skipped']} exist, {len(summary['bad'])} bad.")
    if summary["bad"]:
        raise SystemExit(1)


async def _import(
    parts: Parts, file: Path, kind: Literal["jsonl", "csv"], *, size: int, dry_run: bool
) -> dict[str, Any]:
    imported = skipped = 0
    bad: list[dict[str, Any]] = []
    batch: list[_Row] = []

    async def write() -> None:
        nonlocal imported, skipped
        # The last line of a name wins nothing: the first one is the account, as if they had come one by one.
        written = await parts.users.import_batch(
            [(row.username, row.email, row.password_hash, row.granted_scopes) for row in batch], dry_run=dry_run
        )
        imported += written
        skipped += len(batch) - written
        batch.clear()

    with (
        open(file, encoding="utf-8-sig", newline="", errors="surrogateescape") as source,  # noqa: ASYNC230 — alone here
        click.progressbar(length=size, label="Importing", file=sys.stderr) as bar,
    ):
        position = 0
        for line, fields in _rows(source, kind):
            try:
                batch.append(_checked(line, fields))
            except _BadRow as exc:
                bad.append({"line": line, "reason": str(exc)})
            if len(batch) == _BATCH:
                await write()
                reached = os.lseek(source.fileno(), 0, os.SEEK_CUR)
                bar.update(reached - position)
                position = reached
        if batch:
            await write()
        bar.update(size - position)
    return {"imported": imported, "skipped": skipped, "bad": bad, "dry_run": dry_run}


def _rows(source: TextIO, kind: Literal["jsonl", "csv"]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Each row's line number and its fields, or why it has none."""
    if kind == "csv":
        reader = csv.DictReader(source, strict=True)
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as exc:
                yield reader.line_num, f"not CSV: {exc}"
                continue
            extra = row.pop(None, None)
            yield reader.line_num, "has more columns than the header" if extra else dict(row)
    else:
        for number, line in enumerate(source, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                yield number, "not JSON"
                continue
            yield number, row if isinstance(row, dict) else "not a JSON object"


def _checked(line: int, fields: dict[str, Any] | str) -> _Row:
    if isinstance(fields, str):
        raise _BadRow(fields)
    unknown = fields.keys() - _FIELDS
    if unknown:
        raise _BadRow(f"has fields that are not one of {', '.join(sorted(_FIELDS))}")
    values = {}
    for field in ("username", "email", "password_hash"):
        value = fields.get(field)
        if not isinstance(value, str) or not value:
            raise _BadRow(f"{field} is missing")
        values[field] = value
    granted = scopes.split(fields.get("scopes") or "") if isinstance(fields.get("scopes") or "", str) else None
    if granted is None or not all(map(scopes.is_valid, granted)):
        raise _BadRow("scopes must be scopes separated by spaces")
    try:
        username = names.username(values["username"])
    except NameRefused as exc:
        raise _BadRow(f"username {exc}") from None
    try:
        email = names.email(values["email"])
    except NameRefused as exc:
        raise _BadRow(f"email {exc}") from None
    try:
        password_hash = imported_hash(values["password_hash"])
    except ImportedHashRefused as exc:
        raise _BadRow(f"password_hash {exc}") from None
    return _Row(line, username, email, password_hash, granted)
