"""What a command prints: a table for people, JSON for machines.

A table fits the terminal; where there is none, because the output goes to a file or a pipe, nothing is cut or folded.
"""

import json
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click
from rich.cells import cell_len

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")

_GAP = "  "
_LONGEST_SPARE = 60  # characters on a terminal
_LEAST_TO_WRAP = 24


def show(
    rows: Sequence[Mapping[str, Any]],
    *,
    as_json: bool,
    columns: Sequence[str],
    spare: Sequence[str] = (),
    empty: str = "None.",
    colours: Mapping[str, str] | None = None,
) -> None:
    """Print `rows` as a JSON array, or as a table of `columns` and of as many `spare` ones as there is room for.

    `colours` says in which colour to write which text of a cell; where there is no terminal, nothing is coloured.
    """
    if as_json:
        show_json(rows)
        return
    if not rows:
        click.echo(empty)
        return
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    names = [*columns, *spare]
    cells = [[_title(name) for name in names]]
    for row in rows:
        texts = [_cell(row[name]) for name in names]
        cells.append(texts[: len(columns)] + [_cut(text, room) for text in texts[len(columns) :]])
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    shown = len(names)
    while room is not None and shown > len(columns) and _width(widths[:shown]) > room:
        shown -= 1
    header, *body = (_lines(row[:shown], widths[:shown], room, colours or {}) for row in cells)
    click.secho("\n".join(header), bold=True)
    click.echo("\n".join(line for lines in body for line in lines))
    if shown < len(names):
        hidden = ", ".join(map(_title, names[shown:]))
        click.secho(f"No room here for: {hidden}. A wider terminal or --json shows all.", dim=True, err=True)


def show_json(value: object) -> None:
    click.echo(json.dumps(value, default=_plain, indent=2))


def say(text: str, *, as_json: bool, **facts: object) -> None:
    """Print one sentence, or `facts` as a JSON object."""
    if as_json:
        show_json(facts)
    else:
        click.echo(text)


def counted(number: int, noun: str) -> str:
    """`1 session`, `2 sessions`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _lines(row: Sequence[str], widths: Sequence[int], room: int | None, colours: Mapping[str, str]) -> list[str]:
    """One row of the table; the text of its last column goes on below itself where there is no room."""
    *before, last = row
    start = "".join(
        (click.style(text, fg=colours[text]) if text in colours else text) + " " * (width - cell_len(text)) + _GAP
        for text, width in zip(before, widths[:-1], strict=True)
    )
    begins = _width(widths[:-1]) + len(_GAP) if before else 0
    if room is None or room - begins < _LEAST_TO_WRAP:
        return [start + last]
    first, *more = textwrap.wrap(last, room - begins, break_on_hyphens=False) or [""]
    return [start + first, *(" " * begins + text for text in more)]


def _width(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _title(column: str) -> str:
    return column.removesuffix("_at").replace("_", " ")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M")
    # What somebody else chose as a name must not move the cursor.
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(value))


def _cut(text: str, room: int | None) -> str:
    return text if room is None or len(text) <= _LONGEST_SPARE else f"{text[: _LONGEST_SPARE - 1]}…"


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, frozenset | set):
        return sorted(value)
    return str(value)
