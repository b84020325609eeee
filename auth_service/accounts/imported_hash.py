"""A password hash from another system: which are accepted, and the spelling in which this service keeps them."""

import re

# Whole, with what is inside: passlib itself goes by the first characters, and finds the rest out at the login.
_ARGON2 = re.compile(
    r"\$argon2(?:id|i|d)(?:\$v=(?:16|19))?\$m=([1-9][0-9]{0,9}),t=([1-9][0-9]{0,9}),p=([1-9][0-9]{0,7})"
    r"\$([A-Za-z0-9+/]{11,})\$([A-Za-z0-9+/]{22,})"
)
_DJANGO_PBKDF2 = re.compile(r"pbkdf2_sha256\$([1-9][0-9]{0,9})\$[A-Za-z0-9]+\$[A-Za-z0-9+/]{43}=")
_PASSLIB_PBKDF2 = re.compile(r"\$pbkdf2-sha256\$([1-9][0-9]{0,9})\$[A-Za-z0-9./]+\$[A-Za-z0-9./]{43}")

_LONGEST = 512  # what the column holds
# Checking takes seconds beyond these, or more memory than a small machine has: one login would hold up the others.
_MOST_ROUNDS = 5_000_000
_MOST_MEMORY_KIB = 256 * 1024
_MOST_MEMORY_READ_KIB = 4 * _MOST_MEMORY_KIB  # memory times passes
_MOST_LANES = 64


class ImportedHashRefused(ValueError):
    """The hash cannot be kept; the text says why, and never repeats it."""


def imported_hash(text: str) -> str:
    """The hash as it is kept. Raises ImportedHashRefused."""
    if text.startswith("!"):
        raise ImportedHashRefused("says that the account has no usable password (Django)")
    # Django writes its own name before what every other argon2 library writes.
    kept = text.removeprefix("argon2") if text.startswith("argon2$argon2") else text
    argon2 = _ARGON2.fullmatch(kept)
    pbkdf2 = _DJANGO_PBKDF2.fullmatch(kept) or _PASSLIB_PBKDF2.fullmatch(kept)
    if argon2 and any(len(base64) % 4 == 1 for base64 in argon2.group(4, 5)):
        argon2 = None
    if len(kept) > _LONGEST or not (argon2 or pbkdf2):
        raise ImportedHashRefused(
            "is not a whole hash of one of these kinds: argon2, pbkdf2_sha256 of Django or of passlib"
        )
    if pbkdf2 and int(pbkdf2[1]) > _MOST_ROUNDS:
        raise ImportedHashRefused(f"has more than {_MOST_ROUNDS} rounds: it would take too long to check")
    if argon2:
        memory, passes, lanes = (int(number) for number in argon2.group(1, 2, 3))
        if memory > _MOST_MEMORY_KIB or memory * passes > _MOST_MEMORY_READ_KIB or lanes > _MOST_LANES:
            raise ImportedHashRefused("would take too much memory or time to check")
        if memory < 8 * lanes:  # RFC 9106 §3.1: no library can check it
            raise ImportedHashRefused("has less memory than argon2 needs")
    return kept
