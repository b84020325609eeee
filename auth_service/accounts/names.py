"""User names and e-mail addresses: what is accepted, and the normalised form that uniqueness is decided on.

The form is NFKC, case-folded, and NFKC again, since folding can undo the first (Unicode Standard, D146).
"""

import re
import unicodedata
from dataclasses import dataclass, field

USERNAME_MAX_LENGTH = 64
EMAIL_MAX_LENGTH = 254  # RFC 5321 §4.5.3.1.3, less the angle brackets


class NameRefused(ValueError):
    """The name cannot be used; the text says why, and never repeats it."""


@dataclass(frozen=True, slots=True)
class Name:
    """A user name or e-mail address: `text` as people see it, `key` as it is compared."""

    text: str = field(repr=False)
    key: str = field(repr=False)


def key(text: str) -> str:
    """The form in which two spellings of one name are equal."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def username(text: str) -> Name:
    """Raises NameRefused."""
    name = _name(text, USERNAME_MAX_LENGTH)
    if "@" in name.text:
        raise NameRefused("must not hold @, which would look like an e-mail address")
    return name


def email(text: str) -> Name:
    """One `@` with something on both sides. Whether mail arrives there is not checked. Raises NameRefused."""
    name = _name(text, EMAIL_MAX_LENGTH)
    local, at, domain = name.text.rpartition("@")
    if not at or not local or not domain or "@" in local or any(map(str.isspace, name.text)):
        raise NameRefused("must be an e-mail address")
    return name


def _name(text: str, longest: int) -> Name:
    shown = unicodedata.normalize("NFKC", text)
    if not 0 < len(shown) <= longest:
        raise NameRefused(f"must have from 1 to {longest} characters")
    if shown != shown.strip():
        raise NameRefused("must not begin or end with white space")
    # C: control, format, surrogate, private use, unassigned. Zl and Zp: line breaks.
    if any(unicodedata.category(character) in _UNSEEN or _IGNORABLE.match(character) for character in shown):
        raise NameRefused("must hold only characters that can be seen")
    folded = key(shown)
    if len(folded) > 255:
        raise NameRefused(f"must have from 1 to {longest} characters")
    return Name(shown, folded)


_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Default_Ignorable_Code_Point outside those: fillers, joiners and variation selectors, which print as nothing.
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
