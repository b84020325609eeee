"""`auth-service check`."""

import click

from auth_service.app import Parts
from auth_service.cli.output import json_option, show, show_json
from auth_service.cli.running import run_or_exit
from auth_service.preflight import Finding, check_database, check_keys, check_redis
from auth_service.settings import Settings, SettingsError, load_settings
from auth_service.stores.clock import Clock


@click.command("check")
@json_option
def check(as_json: bool) -> None:
    """Say what is wrong with settings, stores and keys, and how to mend it. Changes nothing.

    Exit code 0: all is well. 1: something is wrong or does not answer. 2: a setting is wrong.
    """
    try:
        settings = load_settings()
    except SettingsError as exc:
        wrong = [{"subject": name, "state": "wrong", "detail": problem} for name, problem in exc.problems.items()]
        _show(wrong, as_json=as_json)
        raise SystemExit(2) from None
    findings = run_or_exit(lambda: preflight(settings))
    _show([_row(finding) for finding in findings], as_json=as_json)
    if any(finding.state != "ok" for finding in findings):
        raise SystemExit(1)


async def preflight(settings: Settings) -> list[Finding]:
    """Every check, in the order in which to mend."""
    findings = [Finding("settings", "ok", f"are well formed; the issuer is {settings.issuer}")]
    findings.append(await check_database(settings))
    findings.append(await check_redis(settings))
    parts = Parts(settings, Clock())
    await parts.open()
    try:
        findings.append(await check_keys(parts.database, parts.key_store))
    finally:
        await parts.close()
    return findings


def _row(finding: Finding) -> dict[str, str]:
    return {"subject": finding.subject, "state": finding.state, "detail": finding.detail}


def _show(rows: list[dict[str, str]], *, as_json: bool) -> None:
    if as_json:
        show_json(rows)
    else:
        show(rows, as_json=False, columns=("subject", "state", "detail"))
