"""`auth-service keys`: listing, rotating, revoking and rewrapping the signing keys."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

import click

from auth_service import audit
from auth_service.cli.arguments import TEXT
from auth_service.cli.output import counted, json_option, say, show
from auth_service.cli.running import with_parts
from auth_service.errors import NotFound
from auth_service.keys.life_cycle import Switch
from auth_service.keys.rewrapping import Rewrapped
from auth_service.keys.schedule import KeyLife
from auth_service.parts import Parts

_KID = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_COLOURS = {"signing": "green", "revoked": "red"}


@click.group()
def keys() -> None:
    """List, rotate, revoke and rewrap the signing keys.

    They rotate by themselves: see AUTH_KEY_ROTATION_INTERVAL.
    """


@keys.command("list", short_help="List the keys.")
@json_option
def list_keys(as_json: bool) -> None:
    """List the keys, the oldest first.

    A standby is published and signs next; a retired key only verifies, until the last token that it signed has expired.
    """

    async def work(parts: Parts) -> tuple[datetime, tuple[KeyLife, ...]]:
        return await parts.key_life_cycle.list()

    now, lives = with_parts(work)
    rows = [
        {
            "kid": life.kid,
            "state": life.state(now),
            "created_at": life.created_at,
            "signs_from": life.signs_from,
            "signs_until": life.signs_until,
            "removed_at": life.removed_at,
        }
        for life in lives
    ]
    show(
        rows,
        as_json=as_json,
        columns=("kid", "state"),
        spare=("signs_from", "signs_until", "created_at", "removed_at"),
        empty="No key yet: the first is made when the service starts.",
        colours=_COLOURS,
    )


@keys.command(short_help="Have the standby sign as soon as it may.")
@json_option
def rotate(as_json: bool) -> None:
    """Have the standby sign as soon as it may: when every verifier has had the time to fetch it.

    No token is refused for it. A key that somebody else may hold is not rotated but revoked: `keys revoke`.
    """

    async def work(parts: Parts) -> Switch:
        return await parts.key_life_cycle.rotate(by=audit.OPERATOR)

    switch = with_parts(work)
    when = switch.signs_from.strftime("%Y-%m-%d %H:%M:%S")
    text = f"{switch.kid} signs from {when} UTC on" + ("." if switch.hastened else ", as it would have anyway.")
    say(text, as_json=as_json, kid=switch.kid, signs_from=switch.signs_from, hastened=switch.hastened)


class _TakesAKid(click.Command):
    """A kid may begin with a hyphen, and is no option for all that."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        kids = [] if "--" in args else list(filter(_KID.fullmatch, args))
        if kids:
            args = [*(arg for arg in args if arg not in kids), "--", *kids]
        return super().parse_args(ctx, args)


@keys.command(cls=_TakesAKid, short_help="Refuse all that a key has signed.")
@click.argument("kid", type=TEXT)
@click.option("--end-sessions", is_flag=True, help="End every live session too: everybody signs in again.")
@json_option
def revoke(kid: str, end_sessions: bool, as_json: bool) -> None:
    """Refuse all that the key KID has signed, here and in every verifier, within two seconds.

    If it is the one that signs, the standby takes its place at once. Whoever has a refresh token of this key signs in
    again.
    """

    async def work(parts: Parts) -> tuple[bool, int]:
        try:
            is_new = await parts.key_revocation.revoke(kid, by=audit.OPERATOR)
        except NotFound:
            raise click.ClickException("there is no key of this kid: `auth-service keys list` shows them") from None
        if not end_sessions:
            return is_new, 0
        with _progress("Ending sessions") as progress:
            return is_new, await parts.ending.end_every(reason="key_revoked", by=audit.OPERATOR, progress=progress)

    is_new, ended = with_parts(work)
    text = "Revoked." if is_new else "It had been revoked already; every verifier is told again."
    if end_sessions:
        text += f" {counted(ended, 'session')} ended."
    say(text, as_json=as_json, kid=kid, revoked=is_new, ended_sessions=ended)


@keys.command(short_help="Encrypt every key under the first encryption key.")
@json_option
def rewrap(as_json: bool) -> None:
    """Encrypt every stored private key anew under the first of AUTH_KEY_ENCRYPTION_KEYS.

    Give every process the new encryption key first in the list, then run this; after it the old one can go. It may be
    interrupted anywhere and run again.
    """

    async def work(parts: Parts) -> Rewrapped:
        with _progress("Rewrapping") as progress:
            return await parts.key_rewrapping.run(by=audit.OPERATOR, progress=progress)

    result = with_parts(work)
    text = f"Rewrapped {counted(result.rewrapped, 'key')}; {result.unchanged} needed nothing."
    say(text, as_json=as_json, rewrapped=result.rewrapped, unchanged=result.unchanged)


@contextmanager
def _progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told how many of how many are done; only a person sees it."""
    with click.progressbar(length=0, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:

        def progress(done: int, of_all: int) -> None:
            bar.length = of_all
            bar.update(done - bar.pos)

        yield progress
