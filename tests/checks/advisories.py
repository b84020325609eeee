"""Known holes in what uv.lock pins, told by pip-audit. Exit code 1 where there are any.

A machine from which the advisories cannot be reached still has a `make check`: it is told that nothing was audited.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

_LOCK = Path(__file__).parent.parent.parent / "uv.lock"

# Advisory: why it cannot be mended, why it does not reach us, and the date on which somebody looked.
_ACCEPTED: dict[str, str] = {}

_UNREACHABLE = re.compile(r"(?i)connect|timed out|ServiceError")


def requirements(lock: Path) -> list[str]:
    """All that the lock pins, for every platform and in every group, as `name==version`."""
    packages = tomllib.loads(lock.read_text("utf-8"))["package"]
    return [f"{package['name']}=={package['version']}" for package in packages if "registry" in package["source"]]


def rounds(pinned: list[str]) -> list[list[str]]:
    """The same with each package once in a round: pip-audit takes no second version, which a marker may call for."""
    by_round: list[dict[str, str]] = []
    for requirement in pinned:
        name = requirement.partition("==")[0]
        for one in by_round:
            if name not in one:
                one[name] = requirement
                break
        else:
            by_round.append({name: requirement})
    return [list(one.values()) for one in by_round]


def audit(pinned: list[str], *options: str) -> int:
    """Say what pip-audit knows of these, without installing any of it; answers the exit code."""
    accepted = [option for advisory in _ACCEPTED for option in ("--ignore-vuln", advisory)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(pinned))
        file.flush()
        command = ["--requirement", file.name, "--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json"]
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", *command, *accepted, *options], capture_output=True, text=True
        )
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except ValueError:
        reason = done.stderr.strip().rpartition("\n")[2]
        if not _UNREACHABLE.search(reason):
            _say(f"pip-audit failed: {reason}")
            return 1
        _say(f"NOT AUDITED: the advisories cannot be reached from here. {reason}")
        return 0
    holes = [(found["name"], found["version"], hole) for found in dependencies for hole in found.get("vulns", ())]
    for name, version, hole in holes:
        _say(f"{name} {version}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'no release yet'}")
    if skipped := [found["name"] for found in dependencies if "skip_reason" in found]:
        some = ", ".join(skipped[:5]) + (" and others" if len(skipped) > 5 else "")
        _say(f"NOT AUDITED: {len(skipped)} of {len(dependencies)} packages, of which nothing is known here: {some}")
    _say(f"{len(dependencies) - len(skipped)} packages audited, {len(holes)} known holes")
    return 1 if holes else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(max([audit(pinned, *sys.argv[1:]) for pinned in rounds(requirements(_LOCK))]))
