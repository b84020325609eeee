"""A real nginx with one of the configurations under `deploy/nginx` as it stands, on other ports."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from auth_service.devstack.process import ServerProcess, accepts_connections

FRONT = 8080
"""The port that every configuration listens on."""

_CONFIGURATIONS = Path(__file__).parents[2] / "deploy" / "nginx"
_NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

needs_nginx = pytest.mark.skipif(_NGINX is None, reason="no nginx here: install Debian's package to run this")


@contextmanager
def nginx(configuration: str, folder: Path, ports: Mapping[int, int]) -> Iterator[None]:
    """nginx runs with that file while the body does; `ports`: what each port of the file is here."""
    assert _NGINX is not None
    text = (_CONFIGURATIONS / configuration).read_text("utf-8")
    for stands, runs in ports.items():
        before = text
        for ending in (";", " "):
            text = text.replace(f":{stands}{ending}", f":{runs}{ending}")
        assert text != before, f"{configuration} has no port {stands}"
    (folder / configuration).write_text(text, "utf-8")
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr warn; worker_processes 1; events {{}}"
        f"http {{ access_log off; {paths} include {folder}/{configuration}; }}",
        "utf-8",
    )
    server = ServerProcess([_NGINX, "-c", folder / "nginx.conf", "-p", folder], log=folder / "nginx.log")
    try:
        server.wait_until(lambda: accepts_connections(ports[FRONT]), seconds=10)
        yield
    finally:
        server.stop()
