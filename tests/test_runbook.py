"""The runbook's drills, as it tells them: a lost encryption key, a database from a backup, a migration taken back."""

import asyncio
import os
import re
import secrets
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

import asyncpg

from auth_service.settings import Settings
from tests.support.command import command
from tests.support.service import problem, running_service
from tests.support.stores import Stores
from tests.support.tokens import header_of

_RUNBOOK = (Path(__file__).parent.parent / "deploy" / "RUNBOOK.md").read_text("utf-8")

MakeSettings = Callable[..., Settings]


async def test_a_lost_encryption_key_logs_nobody_out(settings: MakeSettings) -> None:
    made = settings()
    another = settings(key_encryption_keys=urlsafe_b64encode(secrets.token_bytes(32)).decode())
    async with running_service(made) as before:
        user = await before.register()
    assert (await asyncio.to_thread(command, "check", settings=another)).code == 1
    [sql] = re.findall(r"```sql\n(.*?)```", _section("A lost encryption key"), re.S)
    connection = await asyncpg.connect(made.database_url.get_secret_value())
    await connection.execute(sql)
    await connection.close()
    async with running_service(another) as after:
        assert (await after.me(user.access_token)).status_code == 200
        answer = await after.refresh(user.refresh_token)
        assert answer.status_code == 200
        assert header_of(answer.json()["access_token"])["kid"] != header_of(user.access_token)["kid"]
        published = {key["kid"] for key in (await after.http.get("/.well-known/jwks.json")).json()["keys"]}
        assert header_of(user.access_token)["kid"] in published
    assert (await asyncio.to_thread(command, "check", settings=another)).code == 0


async def test_a_restored_database_revives_a_session_and_the_drill_ends_it(stores: Stores) -> None:
    original = await asyncio.to_thread(stores.new_database)
    async with running_service(stores.settings(database_url=original)) as service:
        user = await service.register()
    # A backup, of a database that nobody is connected to.
    name = f"{original.rpartition('/')[2]}_restored"
    await asyncio.to_thread(stores.postgresql.create_database, name, template=original.rpartition("/")[2])
    async with running_service(stores.settings(database_url=original)) as service:
        assert (await service.logout(user.refresh_token)).status_code == 204
        assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_revoked")

    restored = stores.settings(database_url=stores.postgresql.url(name))
    async with running_service(restored) as service:
        assert (await service.me(user.access_token)).status_code == 200, "what the runbook warns of"
        assert (await service.refresh(user.refresh_token)).status_code == 200
    [line] = set(re.findall(r"auth-service (keys revoke KID .*)", _section("PostgreSQL restored from a backup")))
    arguments = line.replace("KID", header_of(user.access_token)["kid"]).split()
    done = await asyncio.to_thread(command, *arguments, settings=restored)
    assert (done.code, re.findall(r"[0-9]+ sessions? ended", done.out)) == (0, ["1 session ended"])
    async with running_service(restored) as service:
        assert problem(await service.me(user.access_token)) == (401, "invalid_token")
        assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_revoked")
        assert (await service.login(user)).access_token
    await asyncio.to_thread(stores.drop, original)
    await asyncio.to_thread(stores.drop, stores.postgresql.url(name))


async def test_a_migration_is_taken_back_and_applied_again(stores: Stores) -> None:
    made = stores.settings(database_url=await asyncio.to_thread(stores.new_database))
    async with running_service(made) as service:
        user = await service.register()
    [script] = re.findall(r"```bash\n(tortoise .*?)```", _section("Upgrade and roll-back"), re.S)
    done = await asyncio.to_thread(
        subprocess.run,
        ["bash", "-euo", "pipefail", "-c", script],
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "AUTH_DATABASE_URL": made.database_url.get_secret_value(),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = await asyncio.to_thread(command, "check", settings=made)
    assert found.code == 1
    assert re.search(r"missing: run `auth-service migrate`", found.out)
    assert (await asyncio.to_thread(command, "migrate", settings=made)).code == 0
    async with running_service(made) as service:
        assert (await service.refresh(user.refresh_token)).status_code == 200
    await asyncio.to_thread(stores.drop, made.database_url.get_secret_value())


def _section(title: str) -> str:
    return _RUNBOOK.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
