"""A file of accounts, CSV or JSON lines: its rows and their lines. What a row may hold is `user_import.py`'s."""

import codecs
import csv
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

REQUIRED = ("username", "email", "password_hash")
FIELDS = frozenset({*REQUIRED, "scopes"})

_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # as `surrogateescape` reads such bytes


class FileRefused(Exception):
    """The file as a whole cannot be imported; the text says why, and never repeats what is in it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row and the line where it begins. `fields` is why it has none, if it is text."""

    line: int
    fields: dict[str, Any] | str


def rows_of(file: BinaryIO, layout: Literal["auto", "jsonl", "csv"], *, name: str) -> Iterator[Row]:
    """The rows of `file`, which is called `name`. Raises FileRefused, now, if it is not one."""
    first = file.readline()
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise FileRefused("is UTF-16: save it as UTF-8")
    first = first.removeprefix(codecs.BOM_UTF8)
    # A bad byte spoils its row alone.
    lines = (line.decode("utf-8", "surrogateescape") for line in itertools.chain([first] if first else [], file))
    if layout == "auto":
        layout = _layout(Path(name).suffix.lower(), first)
    if layout == "csv":
        return _csv_rows(csv.reader(lines, strict=True))
    if first.lstrip().startswith(b"["):
        raise FileRefused("is one JSON array: write one object a line, as `jq -c '.[]'` does")
    return _json_rows(lines)


def _layout(suffix: str, first: bytes) -> Literal["jsonl", "csv"]:
    if suffix in (".json", ".jsonl", ".ndjson"):
        return "jsonl"
    return "csv" if suffix == ".csv" or not first.lstrip().startswith((b"{", b"[")) else "jsonl"


def _csv_rows(reader: Any) -> Iterator[Row]:
    try:
        header = [name.strip().lower() for name in next(filter(None, reader), [])]
    except csv.Error as exc:
        raise FileRefused(f"is not CSV: {exc}") from None
    # Without repeating what is there: in a file that has no header, the first line is somebody's account.
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise FileRefused(f"needs a first line that names its columns, {','.join(REQUIRED)}: {missing[0]} is not there")
    for number, name in enumerate(header, start=1):
        if name not in FIELDS:
            raise FileRefused(f"has a column, number {number}, that is not one of {', '.join(sorted(FIELDS))}")
        if name in header[: number - 1]:
            raise FileRefused(f"has two columns {name}")
    return _csv_body(reader, header)


def _csv_body(reader: Any, header: list[str]) -> Iterator[Row]:
    while True:
        line = reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            # Where a quote is wrong nobody can say which of the next lines begin a row and which are inside a value,
            # and a value is what some user chose.
            yield Row(line, f"not CSV ({exc}): nothing from this line on was imported")
            return
        if not values:
            continue
        if any(map(_NOT_UTF8.search, values)):
            yield Row(line, "not UTF-8")
        elif len(values) > len(header):
            yield Row(line, "has more columns than the first line: a value that holds a comma needs quotes")
        elif len(values) < len(header):
            yield Row(line, "has fewer columns than the first line")
        else:
            yield Row(line, dict(zip(header, values, strict=True)))


def _json_rows(lines: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if _NOT_UTF8.search(line):
            yield Row(number, "not UTF-8")
            continue
        try:
            value = json.loads(line, object_pairs_hook=_members)
        except _Twice:
            yield Row(number, "names a member twice")
        except (ValueError, RecursionError):
            yield Row(number, "not JSON")
        else:
            yield Row(number, value if isinstance(value, dict) else "not a JSON object")


class _Twice(ValueError):
    """One of the two would be lost in silence."""


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Twice
    return members
