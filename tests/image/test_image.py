"""The image: it builds, holds what it needs and no more, and serves as nobody on a root that it cannot write."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from auth_service.devstack.process import free_port
from auth_service.settings import Settings
from tests.image.container import Image, built_image, missing
from tests.support.processes import environment_of

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"no image is built here: {missing()}")

_COMPILERS = {"cc", "gcc", "g++", "c99", "clang", "ld", "make", "rustc"}
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    with built_image(tmp_path_factory.mktemp("image")) as built:
        yield built


def _environment(settings: Settings) -> dict[str, str]:
    return environment_of(settings) | {
        "AUTH_LISTEN": f"127.0.0.1:{free_port()}",
        "AUTH_INTERNAL_LISTEN": f"127.0.0.1:{free_port()}",
    }


def _wait(url: str, process: "subprocess.Popen[bytes]", log: Path) -> httpx2.Response:
    deadline = time.monotonic() + 30
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            answer = httpx2.get(url, timeout=1)
        except httpx2.TransportError:
            time.sleep(0.05)
            continue
        if answer.status_code != 503:
            return answer
        time.sleep(0.05)


def test_the_image_runs_as_nobody_in_particular_and_says_what_it_is(image: Image) -> None:
    user, _, group = image.config["User"].partition(":")
    assert int(user) >= 10000
    assert int(group) >= 10000
    assert image.config["Entrypoint"] == ["auth-service"]
    assert image.config["Cmd"] == ["serve"]
    assert image.config["Healthcheck"]["Test"][0] == "CMD"
    labels = image.config["Labels"]
    assert labels["org.opencontainers.image.version"] == "1.2.3"
    assert labels["org.opencontainers.image.revision"] == "abcdef"


def test_the_image_holds_no_compiler_no_test_code_and_no_private_key(image: Image) -> None:
    installed = image.root / "opt" / "auth-service"
    assert (installed / "bin" / "auth-service").exists()
    for folder in ("bin", "usr/bin", "usr/local/bin", "opt/auth-service/bin"):
        assert not _COMPILERS & {file.name for file in (image.root / folder).glob("*")}, folder
    assert not (image.root / "opt" / "uv").exists()
    assert not (image.root / "source").exists()
    site = next(installed.glob("lib/python3*/site-packages"))
    assert not [name for name in ("tests", "pytest", "hypothesis", "playwright", "mypy") if (site / name).exists()]
    for package in ("auth_service", "gateway_example"):
        files = [file for file in (site / package).rglob("*") if file.is_file()]
        assert len(files) > 5
        assert not [file for file in files if _PRIVATE_KEY.search(file.read_bytes())]


def test_the_container_serves_as_non_root_on_a_read_only_root(
    image: Image, settings: Callable[..., Settings], tmp_path: Path
) -> None:
    environment = _environment(settings())
    internal = f"http://{environment['AUTH_INTERNAL_LISTEN']}"
    log = tmp_path / "container.log"
    with image.running(["auth-service", "serve"], environment, log=log) as process:
        ready = _wait(f"{internal}/readyz", process, log)
        assert ready.status_code == 200
        assert ready.json()["status"] == "ready"
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert re.search(r"^Uid:\s+10001\s+10001\s+10001\s+10001$", status, re.MULTILINE)
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
        jwks = httpx2.get(f"http://{environment['AUTH_LISTEN']}/.well-known/jwks.json")
        assert jwks.json()["keys"]
        port = internal.rpartition(":")[2]
        health_check = [part.replace("9000", port) for part in image.config["Healthcheck"]["Test"][1:]]
        assert image.run(health_check, environment).returncode == 0
    assert process.returncode == 0, log.read_text()
    # And what would have gone unseen on a root that can be written:
    refused = image.run(["python3", "-c", "open('/opt/auth-service/x', 'w')"], {})
    assert refused.returncode != 0
    assert "Read-only file system" in refused.stderr


def test_the_same_image_is_the_migration_job(image: Image, settings: Callable[..., Settings]) -> None:
    done = image.run(["auth-service", "migrate"], environment_of(settings()))
    assert done.returncode == 0, done.stderr
    assert "up to date" in done.stdout


def test_the_same_image_is_the_gateway_example(image: Image, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "gateway.log"
    environment = {
        "AUTH_ISSUER": "http://127.0.0.1:9",
        "AUTH_AUDIENCE": "gateway",
        "GATEWAY_LISTEN": f"127.0.0.1:{port}",
    }
    with image.running(["python3", "-m", "gateway_example"], environment, log=log) as process:
        assert _wait(f"http://127.0.0.1:{port}/", process, log).status_code == 200
