"""Takes each defence of the security checklist away, in a copy, and sees that a test of its line fails.

`make defences`; LINES="P8 23" narrows it. A defence whose absence no test notices is named, and the exit code is 1.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.checklist import ROOT, Line, Removal, lines

_PATIENCE = 600  # seconds for the tests of one line
_FAILED = re.compile(r"^(?:FAILED|ERROR) tests/(\S+)", re.MULTILINE)


def main(names: list[str]) -> int:
    unnoticed = 0
    with tempfile.TemporaryDirectory(prefix="defences-") as folder:
        copy = Path(folder) / "tree"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        for line in lines().values():
            for number, removal in enumerate(line.without if not names or line.name in names else (), start=1):
                began = time.monotonic()
                noticed = _noticed(copy, line, removal)
                unnoticed += noticed is None
                found = f"{noticed or 'NOBODY NOTICES'} ({time.monotonic() - began:.0f} s)"
                sys.stdout.write(f"{line.name:>4}.{number} {removal.file}: {found}\n")
                sys.stdout.flush()
    return min(unnoticed, 1)


def _noticed(copy: Path, line: Line, removal: Removal) -> str | None:
    """The first test that fails without this defence; None if there is none, or if they could not be run to an end."""
    file = copy / removal.file
    whole = file.read_text("utf-8")
    assert whole.count(removal.old) == 1, removal
    file.write_text(whole.replace(removal.old, removal.new), "utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *line.node_ids(removal)],
        cwd=copy,
        # Before what is installed, also for the processes that the tests start.
        env={**os.environ, "PYTHONPATH": str(copy)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # so that it stops the servers that it has started
        output, _ = process.communicate(timeout=_PATIENCE)
    finally:
        file.write_text(whole, "utf-8")
    failed = _FAILED.search(output)
    # 1: some failed. Tests that could not even be collected say nothing about a defence.
    return failed[1] if process.returncode == 1 and failed else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
