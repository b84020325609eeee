"""`auth-service serve`."""

import click

from auth_service.cli.check import sound_or_exit
from auth_service.cli.running import settings_or_exit
from auth_service.server import PortBusy, serve


@click.command("serve")
@click.option(
    "--workers", type=click.IntRange(1, 64), metavar="COUNT", help="Processes that serve, instead of AUTH_WORKERS."
)
def serve_command(workers: int | None) -> None:
    """Serve both ports until SIGTERM.

    Refuses to start on a store or key that somebody must mend; waits for one that is merely away.
    """
    settings = settings_or_exit(**({"workers": workers} if workers is not None else {}))
    sound_or_exit(settings)
    try:
        serve(settings)
    except PortBusy as exc:
        raise click.ClickException(str(exc)) from None
