"""Which migrations the database has. Applying them is `schema.py`'s, which alone loads Tortoise: it takes a while, and
nothing that serves needs it."""

from importlib import resources

from auth_service.stores.database import Database


def known_migrations() -> list[str]:
    """The names of the migrations that this version has, in their order."""
    files = resources.files("auth_service.migrations").iterdir()
    return sorted(
        file.name.removesuffix(".py") for file in files if file.name[:1].isdigit() and file.name[-3:] == ".py"
    )


async def pending_migrations(database: Database) -> list[str]:
    """The names of those that are not applied yet. Changes nothing. Raises Unavailable."""
    found = await database.row("SELECT to_regclass('tortoise_migrations') IS NOT NULL AS there")
    assert found is not None
    rows = await database.rows("SELECT name FROM tortoise_migrations") if found["there"] else []
    applied = {row["name"] for row in rows}
    return [name for name in known_migrations() if name not in applied]
