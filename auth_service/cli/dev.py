"""`auth-service dev`: the whole service on this machine, in one command and with nothing to set up."""

import asyncio
import os
import secrets
from base64 import urlsafe_b64encode
from pathlib import Path

import click

from auth_service.accounts import names
from auth_service.app import Parts
from auth_service.cli.running import settings_or_exit
from auth_service.devstack.postgresql import PrivatePostgreSQL
from auth_service.devstack.process import StackError
from auth_service.devstack.redis import PrivateRedis
from auth_service.errors import Taken
from auth_service.server import PortBusy, bind, serve
from auth_service.settings import PREFIX, Settings
from auth_service.stores import schema
from auth_service.stores.clock import Clock

_HOST = "127.0.0.1"
_DEMO_USER, _DEMO_EMAIL, _DEMO_PASSWORD = "demo", "demo@example.com", "demo demo demo"


@click.command("dev")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="The public port.")
@click.option("--internal-port", type=click.IntRange(1, 65535), default=9000, show_default=True)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".auth-service"),
    show_default=True,
    help="Where the private stores keep their data.",
)
def dev(port: int, internal_port: int, folder: Path) -> None:
    """Run everything on this machine, with stores of its own and a demo user. Ctrl-C stops all of it.

    PostgreSQL and Redis are those that AUTH_DATABASE_URL and AUTH_REDIS_URL name, else programs found on PATH, else
    those inside the wheels of the dependency group `stack`.
    """
    started: list[PrivatePostgreSQL | PrivateRedis] = []
    try:
        for number, setting in ((port, "--port"), (internal_port, "--internal-port")):
            bind(f"{_HOST}:{number}", setting).close()  # a busy port is named before anything is started
        database_url, redis_url = _stores(folder, started)
        settings = settings_or_exit(
            issuer=f"http://{_HOST}:{port}",
            listen=f"{_HOST}:{port}",
            internal_listen=f"{_HOST}:{internal_port}",
            database_url=database_url,
            redis_url=redis_url,
            key_encryption_keys=_encryption_key(folder),
            allowed_origins=os.environ.get(f"{PREFIX}ALLOWED_ORIGINS") or f"http://{_HOST}:8001",
            log_format="console",
        )
        asyncio.run(_prepare(settings))
        _greet(settings)
        serve(settings)
    except (StackError, PortBusy) as exc:
        raise click.ClickException(str(exc)) from None
    finally:
        for server in reversed(started):
            server.stop()
    click.echo("Stopped. The data is kept in " + click.format_filename(folder))


def _stores(folder: Path, started: list[PrivatePostgreSQL | PrivateRedis]) -> tuple[str, str]:
    """The URLs of both stores; those that had to be started are added to `started`."""
    database_url = os.environ.get(f"{PREFIX}DATABASE_URL")
    if not database_url:
        postgresql = PrivatePostgreSQL(folder)
        click.echo(f"PostgreSQL {postgresql.version}", err=True)
        postgresql.start()
        started.append(postgresql)
        postgresql.create_database()
        database_url = postgresql.url()
    redis_url = os.environ.get(f"{PREFIX}REDIS_URL")
    if not redis_url:
        redis = PrivateRedis(folder, durable=True)
        click.echo(redis.version, err=True)
        redis.start()
        started.append(redis)
        redis_url = redis.url()
    return database_url, redis_url


def _encryption_key(folder: Path) -> str:
    """This folder's own key: made at the first start, so that there is no built-in secret even here."""
    given = os.environ.get(f"{PREFIX}KEY_ENCRYPTION_KEYS")
    if given:
        return given
    file = folder / "encryption.key"
    folder.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(urlsafe_b64encode(secrets.token_bytes(32)).decode("ascii"), "utf-8")
    return file.read_text("utf-8")


async def _prepare(settings: Settings) -> None:
    """The schema and the demo user."""
    await schema.migrate(settings.database_url.get_secret_value())
    parts = Parts(settings, Clock())
    await parts.open()
    try:
        await parts.users.add(
            username=names.username(_DEMO_USER), email=names.email(_DEMO_EMAIL), password=_DEMO_PASSWORD
        )
    except Taken:
        pass
    finally:
        await parts.close()


def _greet(settings: Settings) -> None:
    issuer = settings.issuer
    body = f'{{"email": "{_DEMO_EMAIL}", "password": "{_DEMO_PASSWORD}"}}'
    click.echo(
        f"""
  {click.style("auth-service", bold=True)} is at {click.style(issuer, fg="cyan")}

  API page   {issuer}/docs
  keys       {issuer}/.well-known/jwks.json
  metrics    http://{settings.internal_listen}/metrics
  demo user  {_DEMO_EMAIL}, password "{_DEMO_PASSWORD}"

  Try:
    curl -s {issuer}/user/login -H 'Content-Type: application/json' \\
      -d '{body}'

  Ctrl-C stops everything.
"""
    )
