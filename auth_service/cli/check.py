"""`auth-service check`."""

import click

from auth_service.cli.output import json_option, show
from auth_service.cli.running import run_or_exit
from auth_service.parts import Parts
from auth_service.preflight import Finding, check_database, check_keys, check_redis
from auth_service.settings import Settings, SettingsError, load_settings, misspelt_names
from auth_service.stores.clock import Clock

_COLOURS = {"ok": "green", "away": "yellow", "unknown": "yellow", "wrong": "red"}


@click.command("check")
@json_option
def check(as_json: bool) -> None:
    """Say what is wrong with settings, stores and keys, and how to mend it. Changes nothing.

    Exit code 0: all is well. 1: something is wrong or does not answer. 2: a setting is wrong.
    """
    try:
        settings = load_settings()
    except SettingsError as exc:
        rows = [{"subject": name, "state": "wrong", "detail": problem} for name, problem in exc.problems.items()]
        show(rows, as_json=as_json, columns=("subject", "state", "detail"), colours=_COLOURS)
        raise SystemExit(2) from None
    findings = run_or_exit(lambda: preflight(settings))
    rows = [{"subject": found.subject, "state": found.state, "detail": found.detail} for found in findings]
    rows += [
        {"subject": name, "state": "unknown", "detail": f"this is no setting: is {meant} meant?"}
        for name, meant in misspelt_names().items()
    ]
    show(rows, as_json=as_json, columns=("subject", "state", "detail"), colours=_COLOURS)
    if any(finding.state != "ok" for finding in findings):
        raise SystemExit(1)


def sound_or_exit(settings: Settings) -> None:
    """End the command if a store or a key is wrong; say so on standard error if one is away."""
    findings = run_or_exit(lambda: preflight(settings))
    wrong = [finding for finding in findings if finding.state == "wrong"]
    if wrong:
        lines = "\n".join(f"  {finding.subject}: {finding.detail}" for finding in wrong)
        raise click.ClickException(f"refusing to start:\n{lines}")
    for finding in findings:
        if finding.state == "away":
            click.echo(f"waiting for {finding.subject}: {finding.detail}", err=True)


async def preflight(settings: Settings) -> list[Finding]:
    """Every check, in the order in which to mend."""
    parts = Parts(settings, Clock())
    await parts.open()
    try:
        database = await check_database(parts.database, settings)
        findings = [
            Finding("settings", "ok", f"all are well formed; the issuer is {settings.issuer}"),
            database,
            await check_redis(settings),
        ]
        if database.state == "ok":  # without the tables there are no keys to look at
            findings.append(await check_keys(parts.database, parts.key_store))
    finally:
        await parts.close()
    return findings
