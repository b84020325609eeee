"""The configuration that the `tortoise` command is given; nothing else imports it, since it reads the environment.

`tortoise -c auth_service.stores.tortoise_cli.TORTOISE`: `downgrade`, and `makemigrations`, which does not connect.
"""

import os
from contextlib import suppress
from pathlib import Path

from auth_service.stores.schema import tortoise_config


def _url_of_environment() -> str:
    """As the settings read it, but without any of the others: from the environment, or the file that it names."""
    file = os.environ.get("AUTH_DATABASE_URL_FILE")
    if file:
        with suppress(OSError):  # whoever connects is told that there is no such server
            return Path(file).read_text("utf-8").strip()
    return os.environ.get("AUTH_DATABASE_URL", "postgresql://")


TORTOISE = tortoise_config(_url_of_environment())
