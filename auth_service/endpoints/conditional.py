"""Conditional requests (RFC 9110 §13): whether what the client has is still what it would get."""


def etag_matches(if_none_match: str, etag: str) -> bool:
    """Whether `etag` is among those of an `If-None-Match`: the weak comparison of RFC 9110 §13.1.2."""
    candidates = [candidate.strip().removeprefix("W/") for candidate in if_none_match.split(",")]
    return etag in candidates or "*" in candidates
