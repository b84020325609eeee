"""`auth-service migrate`."""

import click

from auth_service.cli.output import json_option, say
from auth_service.cli.running import run_or_exit, settings_or_exit
from auth_service.stores import schema


@click.command("migrate")
@json_option
def migrate_command(as_json: bool) -> None:
    """Bring the database schema up to date.

    Safe to run at every deployment, and any number of times at once: the runs wait for each other.
    """
    settings = settings_or_exit()
    applied: list[str] = []
    run_or_exit(lambda: schema.migrate(settings.database_url.get_secret_value(), applied=applied.append))
    text = "\n".join(f"Applied {name}." for name in applied) or "The schema is up to date."
    say(text, as_json=as_json, applied=applied)
