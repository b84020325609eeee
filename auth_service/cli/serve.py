"""`auth-service serve`."""

import asyncio

import click

from auth_service.cli.check import preflight
from auth_service.cli.running import settings_or_exit
from auth_service.server import PortBusy, serve


@click.command("serve")
@click.option("--workers", type=int, help="Processes that serve, instead of AUTH_WORKERS.")
def serve_command(workers: int | None) -> None:
    """Serve both ports until SIGTERM.

    Refuses to start on a store or key that somebody must mend; waits for one that is merely away.
    """
    settings = settings_or_exit(**({"workers": workers} if workers is not None else {}))
    findings = asyncio.run(preflight(settings))
    wrong = [finding for finding in findings if finding.state == "wrong"]
    if wrong:
        lines = "\n".join(f"  {finding.subject}: {finding.detail}" for finding in wrong)
        raise click.ClickException(f"refusing to start:\n{lines}")
    for finding in findings:
        if finding.state == "away":
            click.echo(f"waiting for {finding.subject}: {finding.detail}", err=True)
    try:
        serve(settings)
    except PortBusy as exc:
        raise click.ClickException(str(exc)) from None
