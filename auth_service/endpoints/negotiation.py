"""Content negotiation (RFC 9110 §12.5.1): how much a client wants each media range that it names."""

import re
from collections.abc import Iterable

_QUALITY = re.compile(r"q\s*=\s*(0(\.[0-9]*)?|1(\.0*)?)")


def wanted_ranges(accept: Iterable[str]) -> dict[str, float]:
    """The media ranges of the `Accept` headers in lower case, each with its quality: from 0, not at all, to 1."""
    wanted: dict[str, float] = {}
    for media_range in ",".join(accept).split(","):
        name, *parameters = [part.strip().lower() for part in media_range.split(";")]
        qualities = [float(found[1]) for found in map(_QUALITY.fullmatch, parameters) if found is not None]
        wanted[name] = max(wanted.get(name, 0), *(qualities or [1]))
    return wanted
