"""The supply chain: known holes, secrets in the repository, and what the wheel and the image hold."""

import json
import re
import secrets
import subprocess
import sys
import tomllib
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.checks import advisories, secret_scan

_ROOT = Path(__file__).parent.parent

# As https://api.osv.dev/v1/query answers for PyJWT 2.3.0 (abridged).
_HOLE = {
    "id": "GHSA-ffqj-6fqr-9h24",
    "aliases": ["CVE-2022-29217"],
    "summary": "Key confusion through non-blocklisted public key formats",
    "schema_version": "1.4.0",
    "affected": [
        {
            "package": {"name": "pyjwt", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "1.5.0"}, {"fixed": "2.4.0"}]}],
        }
    ],
}


class _Osv(BaseHTTPRequestHandler):
    """The advisory service's protocol, with one hole in it."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = (asked["package"]["name"], asked["version"]) == ("pyjwt", "2.3.0")
        answer = json.dumps({"vulns": [_HOLE]} if known else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def _advisory_service() -> Iterator[tuple[str, str]]:
    """The options of pip-audit that ask it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Osv) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield "--vulnerability-service=osv", f"--osv-url=http://127.0.0.1:{server.server_port}/v1/query"
        finally:
            server.shutdown()
            thread.join()


def test_a_known_hole_fails_the_check_and_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with _advisory_service() as options:
        assert advisories.audit(["starlette==1.10.0", "pyjwt==2.3.0"], *options) == 1
        assert "pyjwt 2.3.0: CVE-2022-29217, mended in 2.4.0" in capsys.readouterr().err
        assert advisories.audit(["starlette==1.10.0"], *options) == 0
    assert capsys.readouterr().err == "1 packages audited, 0 known holes\n"


def test_without_the_advisories_the_check_goes_on_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    nobody = ("--vulnerability-service=osv", "--osv-url=http://127.0.0.1:9/v1/query")
    assert advisories.audit(["pyjwt==2.3.0"], *nobody) == 0
    assert "NOT AUDITED" in capsys.readouterr().err


def test_an_audit_that_fails_for_another_reason_fails_the_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert advisories.audit(["this is no requirement"]) == 1
    assert "pip-audit failed" in capsys.readouterr().err


def test_everything_that_the_lock_pins_is_audited() -> None:
    pinned = {line.partition("==")[0] for line in advisories.requirements(_ROOT / "uv.lock")}
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))
    named = [*project["project"]["dependencies"]]
    for group in (*project["project"]["optional-dependencies"].values(), *project["dependency-groups"].values()):
        named += group
    assert pinned >= {re.split(r"[^a-z0-9-]", requirement)[0] for requirement in named}
    assert {"h11", "uvloop", "colorama"} <= pinned  # what others bring, and what only Windows needs


def _planted() -> dict[str, str]:
    """A new secret of each kind, as somebody would commit it by mistake."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    old_pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    member = urlsafe_b64encode(secrets.token_bytes(256)).decode().rstrip("=")
    capitals = "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(16))
    letters = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLM0123456789") for _ in range(36))
    part = urlsafe_b64encode(b'{"alg":"RS256","x":"' + secrets.token_bytes(6)).decode().rstrip("=")
    random = urlsafe_b64encode(secrets.token_bytes(32)).decode()
    return {
        "PKCS #8": pem,
        "a PEM of OpenSSL": f"x = '''\n{old_pem}'''",
        "a PEM in one line of JSON": json.dumps({"key": pem}),
        "a JWK": json.dumps({"kty": "RSA", "d": member}),
        "a JWT": f"curl -H 'Authorization: Bearer {part}.{part}.{member[:342]}'",
        "a key of AWS": f"aws_access_key_id = AKIA{capitals}",
        "a token of GitHub": f"https://ghp_{letters}@github.com/a/b",
        "an encryption key": f"AUTH_KEY_ENCRYPTION_KEYS={random}",
        "a client secret": f'client_secret: "{random}"',
        "a password in a URL": f"postgresql://auth:{random[:30]}7a@db/auth",
    }


@pytest.mark.parametrize("kind", _planted())
def test_a_planted_secret_is_found_and_not_repeated(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / "notes.txt").write_text(f"first line\n{_planted()[kind]}\n")
    assert secret_scan.scan(secret_scan.tracked(tmp_path)) == 1
    said = capsys.readouterr().err
    assert re.search(r"notes\.txt:\d+: (a|an|the) [^()]+ \([0-9a-f]{16}\)\n", said)
    assert len(said) < 300


def test_what_is_ignored_by_git_is_not_scanned(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text("/.env\n")
    (tmp_path / ".env").write_text(_planted()["an encryption key"])
    assert secret_scan.scan(secret_scan.tracked(tmp_path)) == 0


def test_this_repository_holds_no_secret_and_each_exception_is_needed() -> None:
    files = secret_scan.tracked(_ROOT)
    assert secret_scan.scan(files) == 0
    found = {secret for file in files for _, _, secret in secret_scan.secrets_in(file.read_text("utf-8", "replace"))}
    assert set(map(secret_scan.digest_of, found)) == secret_scan.ACCEPTED.keys()


def test_the_wheel_holds_the_two_packages_and_no_key(tmp_path: Path) -> None:
    built = subprocess.run(
        [Path(sys.executable).parent / "uv", "build", "--wheel", "--offline", "--quiet", "-o", tmp_path],
        cwd=_ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    assert "auth_service/sessions/rotate.lua" in members
    for name, content in members.items():
        assert re.fullmatch(r"(auth_service|gateway_example|auth_service-[\d.]+\.dist-info)/.+", name), name
        assert Path(name).suffix in {".py", ".lua", ".js", ".css", ".html", ".svg", ".typed", ".txt", ""}, name
        assert not any(part.startswith(".") or "test_" in part for part in Path(name).parts), name
        known = set(map(secret_scan.digest_of, _secrets(content))) - secret_scan.ACCEPTED.keys()
        assert not known, name
    tracked = {str(file.relative_to(_ROOT)) for file in secret_scan.tracked(_ROOT)}
    assert {name for name in members if ".dist-info/" not in name} <= tracked


def _secrets(content: bytes) -> list[str]:
    return [secret for _, _, secret in secret_scan.secrets_in(content.decode("utf-8", "replace"))]


def test_the_image_is_made_of_the_two_packages_and_what_names_their_dependencies() -> None:
    """What `COPY` takes, out of what .dockerignore leaves: an image is built of nothing else."""
    sent = (_ROOT / ".dockerignore").read_text().split()
    assert sent[0] == "*"
    admitted = [line.removeprefix("!") for line in sent if line.startswith("!")]
    allowed = {"auth_service", "gateway_example", "pyproject.toml", "uv.lock", "README.md", "LICENSE"}
    assert set(admitted) <= allowed
    for path in ("tests/conftest.py", ".git/config", ".env", ".auth-service/settings", ".venv/bin/python", "deploy/x"):
        assert not any(fnmatch(path, f"{pattern}*") for pattern in admitted), path
    dockerfile = (_ROOT / "Dockerfile").read_text()
    copied = [line.split()[1:-1] for line in dockerfile.splitlines() if re.match(r"(?i)\s*(copy|add)\s", line)]
    assert {source for sources in copied for source in sources if not source.startswith("--from=")} <= allowed | {
        "/opt/auth-service"
    }
    assert "--group" not in dockerfile
    assert "--all-groups" not in dockerfile


def test_a_package_that_is_pinned_twice_is_audited_in_both_versions() -> None:
    assert advisories.rounds(["a==1", "b==1", "a==2", "c==1", "a==3"]) == [["a==1", "b==1", "c==1"], ["a==2"], ["a==3"]]
    pinned = advisories.requirements(_ROOT / "uv.lock")
    assert sorted(line for one in advisories.rounds(pinned) for line in one) == sorted(pinned)


def test_the_image_is_made_with_the_uv_of_the_makefile() -> None:
    [of_the_makefile] = re.findall(r"^UV_VERSION := (\S+)$", (_ROOT / "Makefile").read_text(), re.M)
    assert re.findall(r"uv==(\S+)", (_ROOT / "Dockerfile").read_text()) == [of_the_makefile]
