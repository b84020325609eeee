"""Makes the secrets of a Compose installation: python3 make_secrets.py POSTGRESQL_FOLDER AUTH_FOLDER.

What is there already stays: another database password would lock the service out, and another encryption key would
make every signing key unreadable. Only the standard library is used.
"""

import os
import secrets
import sys
from base64 import urlsafe_b64encode
from pathlib import Path

_AUTH = 10001  # the user of the image
_POSTGRESQL = 999  # the user of PostgreSQL's image


def main(postgresql: Path, auth: Path) -> None:
    password_file = postgresql / "password"
    keep(password_file, secrets.token_hex(24), owner=_POSTGRESQL)
    password = password_file.read_text("ascii")
    keep(auth / "key-encryption-keys", urlsafe_b64encode(secrets.token_bytes(32)).decode("ascii"), owner=_AUTH)
    keep(auth / "database-url", f"postgresql://auth:{password}@postgresql:5432/auth", owner=_AUTH)
    keep(auth / "redis-url", "redis://redis:6379/0", owner=_AUTH)


def keep(file: Path, value: str, *, owner: int) -> None:
    """Write `value`, for `owner` alone, unless the file is there. It is there whole or not at all."""
    if file.exists():
        return
    draft = file.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w", encoding="ascii") as output:
        output.write(value)
    os.chown(draft, owner, owner)
    draft.rename(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
