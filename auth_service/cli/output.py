"""What a command prints: a table for people, JSON for machines, and errors that say how to mend them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def show(rows: Sequence[Mapping[str, Any]], *, as_json: bool, columns: Iterable[str], empty: str = "None.") -> None:
    """Print `rows`: those `columns` of them as a table, or all of them as a JSON array."""
    if as_json:
        show_json(rows)
        return
    if not rows:
        click.echo(empty)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in columns))
    Console(soft_wrap=False, highlight=False).print(table)


def show_json(value: object) -> None:
    click.echo(json.dumps(value, default=_plain, indent=2, ensure_ascii=False))


def say(text: str, *, as_json: bool, **facts: object) -> None:
    """Print one sentence, or `facts` as a JSON object."""
    if as_json:
        show_json(facts)
    else:
        click.echo(text)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    # What a user chose as a name must not move the cursor or read as markup.
    text = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(value))
    return text.replace("[", r"\[")


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, frozenset | set):
        return sorted(value)
    return str(value)
