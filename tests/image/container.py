"""The image, built from the Dockerfile on a base made here, and containers of it on this machine's own network.

A base from Debian's packages and buildah's chroot isolation: no engine and no registry of images is needed. A container
is a mount namespace with the image as a read-only root and the image's user; stronger walls are an engine's concern.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
_BASE = "localhost/base"
_IMAGE = "localhost/auth-service"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_PACKAGES = "python3,python3-venv,ca-certificates"

# The root of the image, bound over itself so that it can be made read-only without making a copy of it.
_RUN = """
mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev"
root="$0"; shift; exec chroot --userspec="$OWNER" "$root" /usr/bin/env -i "$@"
"""


def missing() -> str | None:
    """Why no image can be built here; None where one can."""
    if os.geteuid() != 0:
        return "the image is built and run as root here"
    absent = [name for name in ("buildah", "debootstrap", "unshare", "chroot") if not shutil.which(name)]
    return f"not installed: {', '.join(absent)}" if absent else None


@dataclass(frozen=True, slots=True)
class Image:
    """A built image: where its files are, and what it says of itself."""

    root: Path
    config: Mapping[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        return dict(entry.split("=", 1) for entry in self.config["Env"])

    @contextmanager
    def running(
        self, command: Sequence[str], environment: Mapping[str, str], *, log: Path
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """A container with `command`, as the image's user, on a read-only root; ended with the body."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                self._command(command, environment), env=self._outer(), stdout=output, stderr=subprocess.STDOUT
            )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
        """Run `command` in a container to its end."""
        return subprocess.run(
            self._command(command, environment), env=self._outer(), capture_output=True, text=True, timeout=60
        )

    def _command(self, command: Sequence[str], environment: Mapping[str, str]) -> list[str]:
        given = [f"{name}={value}" for name, value in {**self.environment, **environment}.items()]
        return ["unshare", "--mount", "sh", "-c", _RUN, str(self.root), "", *given, *command]

    def _outer(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "OWNER": self.config["User"]}


@contextmanager
def built_image(folder: Path) -> Iterator[Image]:
    """Build the image in `folder`, base and all; nothing of it is left when the body ends."""
    builder = _Builder(folder)
    _make_base(folder / "base", builder)
    builder.call(
        *("build", "--quiet", "--isolation", "chroot", "--format", "docker", "--build-arg", f"BASE={_BASE}"),
        *("--build-arg", "VERSION=1.2.3", "--build-arg", "REVISION=abcdef", "--tag", _IMAGE, str(ROOT)),
    )
    container = builder.call("from", _IMAGE)
    config = json.loads(builder.call("inspect", "--type", "image", _IMAGE))["Docker"]["config"]
    try:
        yield Image(Path(builder.call("mount", container)), config)
    finally:
        builder.call("umount", container)
        builder.call("rm", container)


def _make_base(folder: Path, builder: "_Builder") -> None:
    command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"no base can be made here, Debian's packages are out of reach: {made.stdout[-300:]}")
    container = builder.call("from", "scratch")
    builder.call("add", "--quiet", container, str(folder), "/")
    if _CERTIFICATES.exists():
        # Whatever authority this machine trusts for the package index, the build must trust too.
        builder.call("add", "--quiet", container, str(_CERTIFICATES), str(_CERTIFICATES))
        for name in ("SSL_CERT_FILE", "PIP_CERT"):
            builder.call("config", "--env", f"{name}={_CERTIFICATES}", container)
    builder.call("commit", "--quiet", container, _BASE)
    builder.call("rm", container)
    shutil.rmtree(folder)


class _Builder:
    """buildah, with all that it keeps in one folder."""

    def __init__(self, folder: Path) -> None:
        self._options = ["--root", str(folder / "storage"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]

    def call(self, *arguments: str) -> str:
        done = subprocess.run(["buildah", *self._options, *arguments], capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout.strip()
