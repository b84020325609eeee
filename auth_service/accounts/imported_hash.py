"""A password hash from another system: which are accepted, and the spelling in which this service keeps them."""

import re

from auth_service.accounts.passwords import is_known_hash

_MAX_ROUNDS = 10_000_000
_MAX_MEMORY_KIB = 1024 * 1024


class ImportedHashRefused(ValueError):
    """The hash cannot be kept; the text says why, and never repeats it."""


def imported_hash(text: str) -> str:
    """The hash as it is kept. Raises ImportedHashRefused."""
    if text.startswith("!"):
        raise ImportedHashRefused("says that the account has no usable password (Django)")
    # Django writes its own name before what every other argon2 library writes.
    kept = text.removeprefix("argon2") if text.startswith("argon2$argon2") else text
    if len(kept) > 512 or not kept.isascii() or not is_known_hash(kept):
        raise ImportedHashRefused("is not one of: argon2, pbkdf2_sha256 of Django or of passlib")
    # A hash that takes minutes to check would hold up everybody's login.
    rounds = re.match(r"(?:pbkdf2_sha256|\$pbkdf2-sha256)\$(\d+)\$", kept)
    memory = re.search(r"\$(?:[^$]*,)?m=(\d+),t=(\d+)", kept)
    if rounds and int(rounds[1]) > _MAX_ROUNDS:
        raise ImportedHashRefused("would take too long to check")
    if memory and (int(memory[1]) > _MAX_MEMORY_KIB or int(memory[2]) > 64):
        raise ImportedHashRefused("would take too much to check")
    return kept
