"""`auth-service dev`: the whole service on this machine, in one command and with nothing to set up."""

import fcntl
import os
import secrets
import shlex
import signal
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from auth_service.accounts import names
from auth_service.audit import OPERATOR
from auth_service.cli.check import sound_or_exit
from auth_service.cli.gateway import Gateway
from auth_service.cli.running import run_or_exit, settings_or_exit
from auth_service.devstack.postgresql import PrivatePostgreSQL
from auth_service.devstack.process import StackError
from auth_service.devstack.redis import PrivateRedis
from auth_service.errors import Taken
from auth_service.parts import Parts
from auth_service.server import PortBusy, bind, serve
from auth_service.settings import PREFIX, Settings, is_given
from auth_service.stores import schema
from auth_service.stores.clock import Clock

_HOST = "127.0.0.1"
_MADE = f"{PREFIX}DEV_MADE"
"""In a terminal that has read `environment`: which values there were made by a `dev`, and given by nobody."""
_DEMO_USER, _DEMO_EMAIL, _DEMO_PASSWORD = "demo", "demo@example.com", "demo demo demo"


@click.command("dev")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8000, show_default=True, metavar="PORT", help="Public port."
)
@click.option(
    "--internal-port",
    type=click.IntRange(1, 65535),
    default=9000,
    show_default=True,
    metavar="PORT",
    help="Internal port: health and metrics.",
)
@click.option(
    "--gateway-port",
    type=click.IntRange(1, 65535),
    default=8001,
    show_default=True,
    metavar="PORT",
    help="Port of the gateway example and its page.",
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".auth-service"),
    show_default=True,
    metavar="FOLDER",
    help="Where the private stores keep their data.",
)
def dev(port: int, internal_port: int, gateway_port: int, folder: Path) -> None:
    """Run everything on this machine: the issuer, the gateway example, stores of their own and a demo user.

    Ctrl-C stops all of it.

    PostgreSQL and Redis are those that AUTH_DATABASE_URL and AUTH_REDIS_URL name, else programs found on PATH, else
    those inside the wheels of the dependency group `stack`.
    """
    ports = {"--port": port, "--internal-port": internal_port, "--gateway-port": gateway_port}
    if len(set(ports.values())) < len(ports):
        raise click.UsageError(f"{', '.join(ports)} must differ")
    started: list[PrivatePostgreSQL | PrivateRedis | Gateway] = []
    try:
        for setting, number in ports.items():
            bind(f"{_HOST}:{number}", setting).close()  # a busy port is named before anything is started
        with _alone_in(folder), _ended_like_ctrl_c():
            try:
                issuer, page = f"http://{_HOST}:{port}", f"http://{_HOST}:{gateway_port}"
                made = _unless_given(folder, started, issuer=issuer)
                settings = settings_or_exit(
                    issuer=issuer, listen=f"{_HOST}:{port}", internal_listen=f"{_HOST}:{internal_port}", **made
                )
                # Beside the origins that were given: the page that is started here signs in too.
                settings = settings.model_copy(update={"allowed_origins": (*settings.allowed_origins, page)})
                run_or_exit(lambda: _prepare(settings))
                sound_or_exit(settings)
                _write_environment(folder, settings, made)
                gateway = Gateway(f"{_HOST}:{gateway_port}", settings)
                _greet(folder, settings, gateway)
                started.append(gateway)
                gateway.start()
                serve(settings, before_stop=gateway.stop)  # before its issuer, whom it would miss
            finally:
                for number in (signal.SIGINT, signal.SIGTERM):  # an impatient second one must not leave them running
                    signal.signal(number, signal.SIG_IGN)
                for server in reversed(started):
                    server.stop()
    except BrokenPipeError:
        raise
    except (StackError, PortBusy, OSError) as exc:
        raise click.ClickException(str(exc)) from None
    click.echo(f"Stopped. The data is kept in {click.format_filename(folder)}")


def _unless_given(
    folder: Path, started: list[PrivatePostgreSQL | PrivateRedis | Gateway], *, issuer: str
) -> dict[str, str]:
    """The settings that nobody gave. Stores that had to be started for them are added to `started`."""
    made: dict[str, str] = {}
    if not _is_given("database_url"):
        postgresql = PrivatePostgreSQL(folder)
        click.echo(f"Starting PostgreSQL {postgresql.version}", err=True)
        started.append(postgresql)
        postgresql.start()
        postgresql.create_database()
        made["database_url"] = postgresql.url()
    if not _is_given("redis_url"):
        redis = PrivateRedis(folder, durable=True)
        click.echo(f"Starting {redis.version}", err=True)
        started.append(redis)
        redis.start()
        made["redis_url"] = redis.url()
    if not _is_given("key_encryption_keys"):
        made["key_encryption_keys"] = _encryption_key(folder)
    if not is_given("audiences"):
        # A name of its own: tokens for the issuer itself, an administrator's among them, open nothing at the gateway.
        made["audiences"] = f"gateway,{issuer}"
    if not is_given("log_format"):
        made["log_format"] = "console"
    return made


def _is_given(field_name: str) -> bool:
    """Whether somebody gave this setting. Values of an earlier `dev` do not count: its stores have gone with it."""
    is_made = os.environ.get(f"{PREFIX}{field_name.upper()}") in os.environ.get(_MADE, "").split()
    return is_given(field_name) and not is_made


def _encryption_key(folder: Path) -> str:
    """This folder's own key: made at the first start, so that there is no built-in secret even here."""
    file = folder / "encryption.key"
    if not file.exists():
        _write_private(file, urlsafe_b64encode(secrets.token_bytes(32)).decode("ascii"))
    return file.read_text("utf-8")


def _write_environment(folder: Path, settings: Settings, made: Mapping[str, str]) -> None:
    """What another terminal needs in order to use the other commands on these stores."""
    values = {
        "ISSUER": settings.issuer,
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "KEY_ENCRYPTION_KEYS": ",".join(key.get_secret_value() for key in settings.key_encryption_keys),
    }
    given = {f"{PREFIX}{name}": value for name, value in values.items()}
    given[_MADE] = " ".join(values[name.upper()] for name in made if name.upper() in values)
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in given.items()]
    _write_private(folder / "environment", "".join(lines))


def _write_private(file: Path, text: str) -> None:
    """Whole or not at all, and for its owner alone."""
    unfinished = file.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    unfinished.write_text(text, "utf-8")
    unfinished.rename(file)


async def _prepare(settings: Settings) -> None:
    """The schema and the demo user."""
    await schema.migrate(settings.database_url.get_secret_value())
    parts = Parts(settings, Clock())
    await parts.open()
    try:
        await parts.users.add(
            username=names.username(_DEMO_USER),
            email=names.email(_DEMO_EMAIL),
            password=_DEMO_PASSWORD,
            by=OPERATOR,
        )
    except Taken:
        pass
    finally:
        await parts.close()


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold `folder`: a second `dev` in it would take the first one's stores for a dead one's and end them."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(
                f"another `auth-service dev` runs in {folder}: stop it, or give this one another --folder"
            ) from None
        yield


@contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """A plain `kill` and a closed terminal stop the stores too, whenever they come."""

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def hang_up(_number: int, _frame: FrameType | None) -> None:
        os.kill(os.getpid(), signal.SIGTERM)  # which the server, once it runs, takes as an orderly stop

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, terminate)}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, hang_up)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _greet(folder: Path, settings: Settings, gateway: Gateway) -> None:
    issuer = settings.issuer
    body = f'{{"email": "{_DEMO_EMAIL}", "password": "{_DEMO_PASSWORD}"}}'
    environment = shlex.quote(str(folder / "environment"))
    click.echo(
        f"""
  {click.style("auth-service", bold=True)}: sign in at {click.style(gateway.url, fg="cyan")}

  demo user  {_DEMO_EMAIL}, password "{_DEMO_PASSWORD}"
  issuer     {issuer}
  API page   {issuer}/docs
  keys       {issuer}/.well-known/jwks.json
  metrics    http://{settings.internal_listen}/metrics

  Try:
    curl -s {issuer}/user/login -H 'Content-Type: application/json' \\
      -d '{body}'

  The other commands, in another terminal:
    . {environment}
    {_command()} users list
    {_command()} users grant {_DEMO_USER} reports:read

  Ctrl-C stops everything.
"""
    )


def _command() -> str:
    """How this program was called: with `make dev` it is not on PATH."""
    called = sys.argv[0]
    return f"{shlex.quote(sys.executable)} -m auth_service" if called.endswith(".py") else shlex.quote(called)
