"""Secrets in the files that git tracks. Exit code 1 where there are any.

Few rules, each of which fits nothing else: a scan that cries wolf is switched off. What may stay is listed by its hash.
"""

import hashlib
import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

_ROOT = Path(__file__).parent.parent.parent

_RULES = {
    "a private key": re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----(?:\s|\\r|\\n)+[\w+/=]{16}"),
    "the private member of a JWK": re.compile(r"""["']d["']\s*:\s*["']([\w-]{22,})["']"""),
    "a JWT": re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{16,}"),
    "an access key of a cloud": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[\w-]{35}\b"),
    "a token of a forge, a registry or a chat": re.compile(
        r"\bgh[pousr]_\w{36}|\bgithub_pat_\w{50}|\bglpat-[\w-]{20}|\bpypi-AgE[\w-]{50}|\bxox[abprs]-[\w-]{16}"
    ),
}
# What a name such as this is given may be random, and must not be.
_ASSIGNED = re.compile(
    r"""(?i)(?:key|secret|token|passw(?:or)?d|credential)s?(?:_file)?["']?\s*[:=]\s*["']?([\w+/=-]{24,})["']?"""
)
_IN_A_URL = re.compile(r"://[^\s/:@]+:([^\s/:@]{12,})@")
_RANDOM = 3.8  # bits a character: 24 random ones of base64 have 4.2 on average, identifiers and words less

ACCEPTED = {
    "52a7d8b78811bcc3": "the header of an example in the OpenAPI document: no token without the rest",
    "0df0ee71b8873825": "the same, of a refresh token",
    "15cef4b629cc2d07": "the nonce of the example in RFC 6455 §1.3",
    "66400269cc559979": "an encryption key of a test: it says so of itself",
}
"""The first 16 digits of the SHA-256 of what was found: what it is, and why it may stay."""


def secrets_in(text: str) -> Iterator[tuple[int, str, str]]:
    """Line, kind and text of each secret in `text`."""
    found = [(kind, match.start(), match[0]) for kind, rule in _RULES.items() for match in rule.finditer(text)]
    for rule in (_ASSIGNED, _IN_A_URL):
        found += [("a random value", match.start(), match[1]) for match in rule.finditer(text) if _is_random(match[1])]
    for kind, start, secret in found:
        yield text.count("\n", 0, start) + 1, kind, secret


def _is_random(text: str) -> bool:
    """Letters and digits in no order: neither an identifier nor a number."""
    mixed = re.search(r"\d", text) and re.search(r"[A-Za-z]", text)
    entropy = -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())
    return bool(mixed) and entropy >= _RANDOM


def scan(files: Iterable[Path]) -> int:
    """Say where there are secrets, without repeating them; answers the exit code."""
    found = [
        f"{file}:{line}: {kind} ({digest_of(secret)})"
        for file in files
        for line, kind, secret in secrets_in(file.read_text("utf-8", errors="replace"))
        if digest_of(secret) not in ACCEPTED
    ]
    print("\n".join(found) or "no secrets in the tracked files", file=sys.stderr)
    return 1 if found else 0


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()[:16]


def tracked(root: Path) -> list[Path]:
    """The files that git tracks, or would with the next `git add`."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [file for name in names.split("\0") if name and (file := root / name).is_file()]


if __name__ == "__main__":
    sys.exit(scan(tracked(_ROOT)))
