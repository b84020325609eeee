"""Canaries: texts that are sent and must not come out elsewhere, and how one is recognised in whatever came out."""

import itertools
import re
import secrets
from base64 import b64encode
from collections.abc import Iterator
from typing import Any


class Canaries:
    """Marked texts, all with one mark. A mark is found however it is written: in any case, in base64, in hex."""

    def __init__(self) -> None:
        self.mark = f"kanarie{secrets.token_hex(4)}x"
        self._numbers = itertools.count(1)
        forms = {re.escape(self.mark), self.mark.encode().hex(), re.escape(repr(list(self.mark.encode()))[1:-1])}
        # Three texts of base64 hold it, one for each place in a group of three. Digits that it shares with others go.
        for before in range(3):
            encoded = b64encode(b"_" * before + self.mark.encode()).decode()
            forms.add(re.escape(encoded[-(before * 8 // -6) : (before + len(self.mark)) * 8 // 6]))
        self._found = re.compile("|".join(sorted(forms)), re.IGNORECASE)

    def new(self) -> str:
        """A text that was not used before: letters and digits, fit for any place."""
        return f"{self.mark}{next(self._numbers)}"

    def is_in(self, text: str) -> bool:
        return self._found.search(text) is not None

    def members_with(self, value: Any, name: str = "") -> Iterator[str]:
        """The names of the members of a JSON value that hold one, or that are one."""
        if isinstance(value, dict):
            for member, inner in value.items():
                if self.is_in(member):
                    yield "a member's name"
                yield from self.members_with(inner, member)
        elif isinstance(value, list):
            for inner in value:
                yield from self.members_with(inner, name)
        elif isinstance(value, str) and self.is_in(value):
            yield name
