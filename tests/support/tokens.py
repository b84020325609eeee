"""Tokens as a test looks at them: their claims read without any check, and forgeries signed with a key at hand."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any


def claims_of(token: str) -> dict[str, Any]:
    return segment(token, 1)


def header_of(token: str) -> dict[str, Any]:
    return segment(token, 0)


def generation_of(refresh_token: str) -> int:
    generation: int = claims_of(refresh_token)["gen"]
    return generation


def segment(token: str, index: int) -> dict[str, Any]:
    text = token.split(".")[index]
    members: dict[str, Any] = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return members


def base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
