"""How soon somebody who knows people would guess a password, by zxcvbn's lists and patterns. Pure, and slow for a loop.

The only file that imports zxcvbn. It calls its matchers one by one: zxcvbn's own front door keeps the names of the last
caller in a global, and takes seconds for some inputs. What the rules are is `password_rules.py`'s.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zxcvbn.matching import _Match

ENOUGH_GUESSES = 10**6
"""Online guessing is throttled long before; zxcvbn calls less than this very guessable (scores 0 and 1)."""

# The matchers take time in the square of the length: about 10 ms for so many characters.
_PIECE = 48
_MOST_PIECES = 4
# zxcvbn tries every reading of such characters as letters: 552 of them for a password that holds them all.
_MOST_READINGS = 16

_WORDS = {
    "passwords": "one of the most used passwords",
    "english_wikipedia": "a common word",
    "us_tv_and_film": "a common word",
    "female_names": "a common name",
    "male_names": "a common name",
    "surnames": "a common name",
}
_PATTERNS = {
    "spatial": "a row of keys next to each other",
    "repeat": "one thing repeated",
    "sequence": "a sequence such as abc or 987",
    "regex": "a year",
    "date": "a date",
    "bruteforce": "too short for what it is made of",
}
_KNOWN = "known"


@dataclass(frozen=True, slots=True)
class _Finding:
    """The fewest guesses for a text, and what it was recognised as: the end of "The password is ..."."""

    guesses: float
    recognised: str = ""


_BEYOND_GUESSING = _Finding(math.inf)


def weakness(password: str, known: Mapping[str, str]) -> str | None:
    """What makes `password` guessable in ENOUGH_GUESSES, to be put behind "The password is"; None where nothing does.

    `known`: words that a guesser would try for this account, in lower case, and what each is. The text that is returned
    names what was recognised and repeats nothing of the password. Takes 1 to 10 ms for what people choose, and 150 ms
    for the worst case that a search has found.
    """
    # The shortest period of a text: where it is found again in its double, after the start.
    period = (password + password).find(password, 1)
    times = len(password) // period
    if times > 1 and _find(password[:period], known).guesses * times < ENOUGH_GUESSES:
        return _PATTERNS["repeat"]
    finding = _find(password, known)
    return finding.recognised if finding.guesses < ENOUGH_GUESSES else None


def _find(text: str, known: Mapping[str, str]) -> _Finding:
    """A long text is as good as its best piece: what is added to a good password cannot make it bad."""
    # Pieces of the same characters are most likely the same pattern again, cut elsewhere.
    different = {frozenset(piece): piece for piece in _pieces(text)}
    if len(different) > _MOST_PIECES:
        return _BEYOND_GUESSING
    best = _Finding(0)
    for piece in different.values():
        best = max(best, _find_in_piece(piece, known), key=lambda finding: finding.guesses)
        if best.guesses >= ENOUGH_GUESSES:
            break
    return best


def _pieces(text: str) -> Iterator[str]:
    """All of the text; the last piece overlaps the one before it rather than be a short one."""
    for start in range(0, len(text) - _PIECE, _PIECE):
        yield text[start : start + _PIECE]
    yield text[-_PIECE:]


def _find_in_piece(text: str, known: Mapping[str, str]) -> _Finding:
    from zxcvbn import scoring  # here, since it takes 15 MiB and 40 ms that a start need not wait for

    matches = _matches(text, known)
    for match in matches:
        if match["token"] == text and match.get("dictionary_name") in ("passwords", _KNOWN):
            return _Finding(1, _recognised(match, known))
    best = scoring.most_guessable_match_sequence(text, matches)
    telling = max(best["sequence"], key=_tells)
    added = " with a little added" if len(best["sequence"]) > 1 else ""
    return _Finding(float(best["guesses"]), _recognised(telling, known) + added)


def _matches(text: str, known: Mapping[str, str]) -> "list[_Match]":
    from zxcvbn import matching

    matchers: list[Callable[..., list[_Match]]] = [
        matching.dictionary_match,
        matching.reverse_dictionary_match,
        matching.spatial_match,
        matching.sequence_match,
        matching.regex_match,
        matching.date_match,
    ]
    readings = math.prod(map(len, matching.relevant_l33t_subtable(text, matching.L33T_TABLE).values()))
    if readings <= _MOST_READINGS:
        # The second looks for the first within what is repeated.
        matchers += [matching.l33t_match, matching.repeat_match]
    ranked = {**matching.RANKED_DICTIONARIES, _KNOWN: {word: rank for rank, word in enumerate(known, 1)}}
    return [match for matcher in matchers for match in matcher(text, _ranked_dictionaries=ranked)]


def _tells(match: "_Match") -> tuple[bool, bool, int]:
    """Of the parts of a password, the one to be named: what is about this account first, then the longest."""
    return match.get("dictionary_name") == _KNOWN, str(match["pattern"]) != "bruteforce", len(match["token"])


def _recognised(match: "_Match", known: Mapping[str, str]) -> str:
    if match["pattern"] != "dictionary":
        return _PATTERNS[match["pattern"]]
    dictionary = match["dictionary_name"]
    return known[match["matched_word"]] if dictionary == _KNOWN else _WORDS[dictionary]
