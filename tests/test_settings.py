"""The settings: what is read, what is refused, and that no refusal ever shows a value."""

import re
import shutil
import subprocess
from base64 import urlsafe_b64encode
from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from auth_service.redis_url import Host, parse_redis_url
from auth_service.settings import Settings, SettingsError, load_settings
from tests.support.command import command

_KEY = urlsafe_b64encode(b"k" * 32).decode()
_GOOD = {
    "AUTH_ISSUER": "https://auth.example.com",
    "AUTH_DATABASE_URL": "postgresql://auth:canary-one@db.example.com/auth",
    "AUTH_REDIS_URL": "redis://:canary-two@redis.example.com:6379/0",
    "AUTH_KEY_ENCRYPTION_KEYS": _KEY,
}
_CANARY = "canary-7f3a"

Environment = Callable[..., None]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Environment:
    """Gives this process exactly these settings, in an empty folder; None takes one away."""
    monkeypatch.chdir(tmp_path)
    for name in [f"AUTH_{field.upper()}{suffix}" for field in Settings.model_fields for suffix in ("", "_FILE")]:
        monkeypatch.delenv(name, raising=False)

    def give(**changes: str | None) -> None:
        for name, value in (_GOOD | changes).items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)

    return give


def _problems(**overrides: Any) -> dict[str, str]:
    with pytest.raises(SettingsError) as refused:
        load_settings(**overrides)
    assert _CANARY not in str(refused.value)
    assert _CANARY not in repr(refused.value)
    return refused.value.problems


def test_the_defaults_are_those_of_the_contract(environment: Environment) -> None:
    environment()
    settings = load_settings()
    assert settings.listen == "127.0.0.1:8000"
    assert settings.internal_listen == "127.0.0.1:9000"
    assert settings.workers == 1
    assert settings.access_token_ttl == timedelta(seconds=600)
    assert settings.refresh_token_ttl == timedelta(seconds=604_800)
    assert settings.session_ttl == timedelta(seconds=2_592_000)
    assert settings.refresh_replay_window == timedelta(seconds=30)
    assert settings.rsa_key_size == 2048
    assert settings.first_party_client_id == "web"
    assert settings.access_token_email is False
    assert settings.password_min_length == 12
    assert settings.audiences == ()
    assert settings.access_token_audiences == ("https://auth.example.com",)
    assert settings.allowed_origins == ()
    assert settings.trusted_proxies == settings.unthrottled_networks == ()
    assert settings.allow_insecure == ()
    assert (settings.log_level, settings.log_format) == ("info", "json")


def test_every_setting_is_described_and_none_but_the_four_is_required() -> None:
    contract = {
        "issuer", "audiences", "database_url", "redis_url", "listen", "internal_listen", "workers", "access_token_ttl",
        "refresh_token_ttl", "session_ttl", "refresh_replay_window", "key_encryption_keys", "rsa_key_size",
        "allowed_origins", "trusted_proxies", "default_scopes", "first_party_client_id", "access_token_email",
        "password_min_length", "log_level", "log_format",
    }  # fmt: skip
    assert set(Settings.model_fields) >= contract
    assert all((field.description or "").endswith(".") for field in Settings.model_fields.values())
    required = {name for name, field in Settings.model_fields.items() if field.is_required()}
    assert required == {"issuer", "database_url", "redis_url", "key_encryption_keys"}


def test_every_bad_value_is_reported_at_once_by_name_and_never_by_value(environment: Environment) -> None:
    bad = {
        "AUTH_ISSUER": f"https://{_CANARY}.example.com/path",
        "AUTH_DATABASE_URL": f"mysql://auth:{_CANARY}@db/auth",
        "AUTH_REDIS_URL": f"http://{_CANARY}",
        "AUTH_KEY_ENCRYPTION_KEYS": _CANARY,
        "AUTH_AUDIENCES": f"{_CANARY}\x07",
        "AUTH_LISTEN": f"{_CANARY}:8000",
        "AUTH_INTERNAL_LISTEN": _CANARY,
        "AUTH_WORKERS": _CANARY,
        "AUTH_MAX_CONNECTIONS": _CANARY,
        "AUTH_ACCESS_TOKEN_TTL": _CANARY,
        "AUTH_REFRESH_TOKEN_TTL": _CANARY,
        "AUTH_SESSION_TTL": _CANARY,
        "AUTH_REFRESH_REPLAY_WINDOW": _CANARY,
        "AUTH_REVOCATION_FEED": _CANARY,
        "AUTH_RSA_KEY_SIZE": _CANARY,
        "AUTH_KEY_ROTATION_INTERVAL": _CANARY,
        "AUTH_ALLOWED_ORIGINS": _CANARY,
        "AUTH_TRUSTED_PROXIES": _CANARY,
        "AUTH_UNTHROTTLED_NETWORKS": _CANARY,
        "AUTH_DEFAULT_SCOPES": f'{_CANARY}"',
        "AUTH_FIRST_PARTY_CLIENT_ID": f"{_CANARY} {_CANARY}",
        "AUTH_ACCESS_TOKEN_EMAIL": _CANARY,
        "AUTH_PASSWORD_MIN_LENGTH": _CANARY,
        "AUTH_AUDIT_RETENTION": _CANARY,
        "AUTH_LOG_LEVEL": _CANARY,
        "AUTH_LOG_FORMAT": _CANARY,
        "AUTH_ALLOW_INSECURE": _CANARY,
    }
    assert {name.removeprefix("AUTH_").lower() for name in bad} == set(Settings.model_fields)
    environment(**bad)
    problems = _problems()
    assert problems.keys() == bad.keys()
    assert not any("not valid" in problem for problem in problems.values()), "each says what is wrong with it"


def test_the_command_line_names_them_all_too_and_exits_with_2(environment: Environment) -> None:
    environment()
    bad = {"AUTH_WORKERS": _CANARY, "AUTH_LISTEN": _CANARY, "AUTH_REDIS_URL": f"redis+sentinel://{_CANARY}"}
    for arguments in (("check",), ("check", "--json"), ("serve",), ("migrate",), ("users", "list")):
        done = command(*arguments, given=_GOOD | bad)
        assert done.code == 2, arguments
        assert all(name in done.out + done.err for name in bad), arguments
        assert _CANARY not in done.out + done.err


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("AUTH_ISSUER", "http://auth.example.com", "AUTH_ALLOW_INSECURE=http_issuer"),
        ("AUTH_ISSUER", "http://localhost.example.com", "AUTH_ALLOW_INSECURE=http_issuer"),
        ("AUTH_ISSUER", "http://127.0.0.1.example.com", "AUTH_ALLOW_INSECURE=http_issuer"),
        ("AUTH_ISSUER", "https://auth.example.com/", "trailing slash"),
        ("AUTH_ISSUER", "https://auth.example.com?x", "without a path"),
        ("AUTH_ISSUER", "https://me@auth.example.com", "without a user name"),
        ("AUTH_ISSUER", "https://Auth.example.com", "lower-case"),
        ("AUTH_ISSUER", "https://auth.example.com:443", "leave out the port"),
        ("AUTH_ISSUER", "https://auth.example.com:99999", "origin"),
        ("AUTH_ISSUER", "auth.example.com", "origin"),
        ("AUTH_KEY_ROTATION_INTERVAL", "3599", "3600"),
        ("AUTH_KEY_ROTATION_INTERVAL", "31536001", "31536000"),
        ("AUTH_ALLOWED_ORIGINS", "https://a.example.com *", "item 2"),
        ("AUTH_ALLOWED_ORIGINS", "https://*.example.com", "item 1"),
        ("AUTH_ALLOWED_ORIGINS", "null", "item 1"),
        ("AUTH_ALLOWED_ORIGINS", "https://exämple.com", "ASCII"),
        ("AUTH_TRUSTED_PROXIES", "10.0.0.0/8,0.0.0.0/0", "item 2"),
        ("AUTH_TRUSTED_PROXIES", "::/0", "every client"),
        ("AUTH_TRUSTED_PROXIES", "10.0.0.1/8", "after the mask"),
        ("AUTH_TRUSTED_PROXIES", "*", "network"),
        ("AUTH_UNTHROTTLED_NETWORKS", "0.0.0.0/0", "every client"),
        ("AUTH_DATABASE_URL", "postgresql://", "host"),
        ("AUTH_DATABASE_URL", "postgresql://u:p@host:port/db", "URL"),
        ("AUTH_DATABASE_URL", "postgresql://u:p/q@host/db", "%XX"),
        ("AUTH_DATABASE_URL", "postgresql://u:12/q@host/db", "%XX"),
        ("AUTH_DATABASE_URL", "postgresql://u:p#q@host/db", "%XX"),
        ("AUTH_DATABASE_URL", "postgresql://u:p?q@host/db", "%XX"),
        ("AUTH_DATABASE_URL", "postgresql://h/db?sslmod=require", "sslmode"),
        ("AUTH_DATABASE_URL", "postgresql://h/db?sslmode=on", "verify-full"),
        ("AUTH_DATABASE_URL", "postgresql://h/db?sslrootcert=/nowhere", "FileNotFoundError"),
        ("AUTH_REDIS_URL", "redis+sentinel://a:26379,b:26379", "must name the master"),
        ("AUTH_REDIS_URL", "redis+sentinel://a:26379/my master", "must name the master"),
        ("AUTH_REDIS_URL", "redis+sentinel://a:26379/mymaster/first", "number"),
        ("AUTH_REDIS_URL", "redis+sentinel://a:26379/mymaster/0/0", "number"),
        ("AUTH_REDIS_URL", "redis+sentinel://a,,b/mymaster", "hosts as host:port"),
        ("AUTH_REDIS_URL", "redis+sentinel://a/mymaster?sentinel_username=u", "needs a sentinel_password"),
        ("AUTH_REDIS_URL", "redis+cluster://a:6379/1", "no numbered databases"),
        ("AUTH_REDIS_URL", "redis+cluster://a:0", "hosts as host:port"),
        ("AUTH_REDIS_URL", "redis+cluster://a:70000", "hosts as host:port"),
        ("AUTH_REDIS_URL", "redis+cluster://a b:6379", "hosts as host:port"),
        ("AUTH_REDIS_URL", "redis+cluster://", "hosts as host:port"),
        ("AUTH_REDIS_URL", "redis+cluster://a?sentinel_password=p", "options"),
        ("AUTH_REDIS_URL", "redis+clusters://a", "redis+cluster://host"),
        ("AUTH_REDIS_URL", "redis://a,b/0", "redis+sentinel:// or redis+cluster://"),
        ("AUTH_REDIS_URL", "redis://password@h", "redis://:password@"),
        ("AUTH_REDIS_URL", "redis+cluster://u:p:q@h", "%XX"),
        ("AUTH_REDIS_URL", "redis://:p/q@h/0", "%XX"),
        ("AUTH_REDIS_URL", "redis://:p#q@h/0", "%XX"),
        ("AUTH_REDIS_URL", "redis://:p@q@h/0", "%XX"),
        ("AUTH_REDIS_URL", "redis://h?protocol=2&protocol=3", "each once"),
        ("AUTH_REDIS_URL", "redis://h?ssl_cert_reqs=none", "rediss://"),
        ("AUTH_REDIS_URL", "rediss://h?ssl_check_hostname=maybe", "true or false"),
        ("AUTH_REDIS_URL", "rediss://h?ssl_ca_certs=/nowhere", "ssl_ca_certs must name"),
        ("AUTH_REDIS_URL", "rediss://h?ssl_certfile=/nowhere", "ssl_certfile and ssl_keyfile must name"),
        ("AUTH_REDIS_URL", "rediss://h?ssl_keyfile=/nowhere", "needs an ssl_certfile"),
        ("AUTH_REDIS_URL", "unix:///run/redis.sock", "redis://"),
        ("AUTH_REDIS_URL", "redis:///0", "host"),
        ("AUTH_REDIS_URL", "redis://h/first", "number"),
        ("AUTH_REDIS_URL", "redis://h?socket_timeout=60", "options"),
        ("AUTH_REDIS_URL", "rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs"),
        ("AUTH_REDIS_URL", "redis://h?protocol=x", "protocol"),
        ("AUTH_KEY_ENCRYPTION_KEYS", "c2hvcnQ=", "openssl rand"),
        ("AUTH_KEY_ENCRYPTION_KEYS", f"{_KEY},{_KEY[:-1]}", "item 2"),
        ("AUTH_KEY_ENCRYPTION_KEYS", _KEY.replace("a", "!", 1), "openssl rand"),
        ("AUTH_KEY_ENCRYPTION_KEYS", ",", "at least one"),
        ("AUTH_LISTEN", "8000", "ADDRESS:PORT"),
        ("AUTH_LISTEN", "127.0.0.1:70000", "65535"),
        ("AUTH_LISTEN", "example.com:80", "IP address"),
        ("AUTH_INTERNAL_LISTEN", "127.0.0.1:8000", "AUTH_LISTEN"),
        ("AUTH_INTERNAL_LISTEN", "[::1]:8000", "AUTH_LISTEN"),
        ("AUTH_WORKERS", "0", "at least 1"),
        ("AUTH_WORKERS", "65", "at most 64"),
        ("AUTH_WORKERS", "1.5", "whole number"),
        ("AUTH_WORKERS", "9" * 5000, "whole number"),
        ("AUTH_ACCESS_TOKEN_TTL", "3601", "3600"),
        ("AUTH_ACCESS_TOKEN_TTL", "0", "from 1"),
        ("AUTH_ACCESS_TOKEN_TTL", "10m", "whole number of seconds"),
        ("AUTH_ACCESS_TOKEN_TTL", "-5", "whole number of seconds"),
        ("AUTH_REFRESH_REPLAY_WINDOW", "4", "from 5 to 300"),
        ("AUTH_REFRESH_REPLAY_WINDOW", "301", "from 5 to 300"),
        ("AUTH_RSA_KEY_SIZE", "1024", "2048, 3072 or 4096"),
        ("AUTH_PASSWORD_MIN_LENGTH", "7", "at least 8"),
        ("AUTH_DEFAULT_SCOPES", "profile auth:admin", "item 2"),
        ("AUTH_DEFAULT_SCOPES", "revocations:read", "never to everybody"),
        ("AUTH_AUDIENCES", "x" * 256, "255"),
        ("AUTH_AUDIENCES", '["orders", "payments"]', "a list is written with commas or spaces"),
        ("AUTH_FIRST_PARTY_CLIENT_ID", "a b", "letter"),
        ("AUTH_ACCESS_TOKEN_EMAIL", "perhaps", "true or false"),
        ("AUTH_LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("AUTH_ALLOW_INSECURE", "everything", "'http_issuer' or 'evicting_redis'"),
    ],
)
def test_a_bad_value_is_refused_and_the_refusal_says_how_to_mend_it(
    environment: Environment, name: str, value: str, says: str
) -> None:
    environment(**{name: value})
    problems = _problems()
    assert problems.keys() == {name}
    assert says in problems[name]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AUTH_ISSUER", "http://localhost:8000"),
        ("AUTH_ISSUER", "http://127.0.0.1:8000"),
        ("AUTH_ISSUER", "http://[::1]:8000"),
        ("AUTH_ISSUER", "https://auth.example.com:8443"),
        ("AUTH_DATABASE_URL", "postgres://auth:p%40ss%2Fword@[::1]:5432/auth?sslmode=verify-full"),
        ("AUTH_DATABASE_URL", "postgresql:///auth?host=/run/postgresql"),
        ("AUTH_REDIS_URL", "rediss://user:p%40ss@redis:6380/2?protocol=3"),
        ("AUTH_REDIS_URL", "redis://[::1]/"),
        ("AUTH_REDIS_URL", "redis+sentinel://:p%2Cw@a,[::1]:26380,c.example:26379/my.master_1/3"),
        ("AUTH_REDIS_URL", "rediss+sentinel://u:p@a/m?sentinel_username=s&sentinel_password=%40&ssl_cert_reqs=none"),
        ("AUTH_REDIS_URL", "rediss+cluster://u:p@a:6379,b:6379?ssl_check_hostname=false"),
        ("AUTH_REDIS_URL", "redis+cluster://a/0"),
        ("AUTH_LISTEN", "[::]:8000"),
        ("AUTH_LISTEN", "0.0.0.0:80"),
        ("AUTH_RSA_KEY_SIZE", "4096"),
        ("AUTH_LOG_LEVEL", "WARNING"),
        ("AUTH_ACCESS_TOKEN_TTL", "3600"),
        ("AUTH_REFRESH_REPLAY_WINDOW", "5"),
        ("AUTH_ALLOWED_ORIGINS", ""),
        ("AUTH_KEY_ENCRYPTION_KEYS", f"{_KEY}\n{_KEY}"),
    ],
)
def test_a_good_value_is_taken(environment: Environment, name: str, value: str) -> None:
    environment(**{name: value})
    load_settings()


def test_a_setting_lifts_the_demand_for_tls(environment: Environment) -> None:
    environment(AUTH_ISSUER="http://auth.example.com", AUTH_ALLOW_INSECURE="http_issuer")
    assert load_settings().issuer == "http://auth.example.com"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("AUTH_ISSUER", "https://auth.example.com"),
        ("AUTH_DATABASE_URL", "postgresql://"),
        ("AUTH_REDIS_URL", "redis://"),
        ("AUTH_KEY_ENCRYPTION_KEYS", "openssl rand -base64 32 | tr '+/' '-_'"),
    ],
)
def test_a_missing_value_says_what_to_give(environment: Environment, name: str, says: str) -> None:
    for missing in (None, ""):
        environment(**{name: missing})
        problems = _problems()
        assert problems.keys() == {name}
        assert "required" in problems[name]
        assert says in problems[name]


def test_lists_are_separated_by_commas_or_white_space(environment: Environment) -> None:
    environment(
        AUTH_AUDIENCES="orders, billing",
        AUTH_ALLOWED_ORIGINS="https://a.example.com\nhttps://b.example.com",
        AUTH_TRUSTED_PROXIES="10.0.0.0/8,fd00::/8 192.0.2.7",
        AUTH_DEFAULT_SCOPES="profile,orders:read",
    )
    settings = load_settings()
    assert settings.audiences == ("orders", "billing")
    assert settings.access_token_audiences == ("orders", "billing")
    assert settings.allowed_origins == ("https://a.example.com", "https://b.example.com")
    assert settings.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("192.0.2.7"))
    assert settings.default_scopes == ("profile", "orders:read")


def test_a_mounted_secret_is_read_without_its_line_end(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://auth:from-a-file@db/auth\n")
    (tmp_path / "keys").write_text(f"{_KEY}\r\n")
    environment(
        AUTH_DATABASE_URL=None,
        AUTH_DATABASE_URL_FILE=str(tmp_path / "url"),
        AUTH_KEY_ENCRYPTION_KEYS=None,
        AUTH_KEY_ENCRYPTION_KEYS_FILE=str(tmp_path / "keys"),
    )
    settings = load_settings()
    assert settings.database_url.get_secret_value() == "postgresql://auth:from-a-file@db/auth"
    assert [key.get_secret_value() for key in settings.key_encryption_keys] == [_KEY]


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "FileNotFoundError"), (b"\xff\xfe", "UnicodeDecodeError"), (b" \n", "is empty")],
)
def test_a_mounted_secret_that_cannot_be_read_is_named_with_everything_else(
    environment: Environment, tmp_path: Path, content: bytes | None, says: str
) -> None:
    if content is not None:
        (tmp_path / "url").write_bytes(content)
    environment(AUTH_DATABASE_URL=None, AUTH_DATABASE_URL_FILE=str(tmp_path / "url"), AUTH_WORKERS="0")
    problems = _problems()
    assert problems.keys() == {"AUTH_DATABASE_URL", "AUTH_WORKERS"}
    assert "AUTH_DATABASE_URL_FILE" in problems["AUTH_DATABASE_URL"]
    assert says in problems["AUTH_DATABASE_URL"]


def test_a_value_and_a_file_for_one_setting_are_refused(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://db/other")
    environment(AUTH_DATABASE_URL_FILE=str(tmp_path / "url"))
    assert "given twice" in _problems()["AUTH_DATABASE_URL"]


def test_the_dotenv_file_is_read_and_the_environment_wins(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(_KEY)
    (tmp_path / ".env").write_text(
        f"""# a comment
AUTH_ISSUER=https://dotenv.example.com
AUTH_WORKERS=3
AUTH_DATABASE_URL_FILE={tmp_path}/nowhere
AUTH_KEY_ENCRYPTION_KEYS_FILE="{tmp_path}/key"
OTHER=thing
"""
    )
    environment(AUTH_ISSUER=None, AUTH_KEY_ENCRYPTION_KEYS=None, AUTH_WORKERS="2")
    assert _problems().keys() == {"AUTH_DATABASE_URL"}, "a file that cannot be read is named, needed or not"
    (tmp_path / "nowhere").write_text("postgresql://dotenv/auth")
    settings = load_settings()
    assert settings.issuer == "https://dotenv.example.com"
    assert settings.workers == 2
    assert settings.database_url.get_secret_value() == _GOOD["AUTH_DATABASE_URL"]
    assert [key.get_secret_value() for key in settings.key_encryption_keys] == [_KEY]


def test_a_dotenv_file_that_is_no_text_is_named(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"AUTH_ISSUER=\xff\xfe\n")
    environment()
    assert _problems().keys() == {".env"}


def test_neither_repr_nor_an_error_shows_a_secret(environment: Environment) -> None:
    environment(
        AUTH_DATABASE_URL=f"postgresql://auth:{_CANARY}@db/auth",
        AUTH_REDIS_URL=f"redis://:{_CANARY}@redis/0",
        AUTH_KEY_ENCRYPTION_KEYS=urlsafe_b64encode(_CANARY.encode().ljust(32)).decode(),
    )
    settings = load_settings()
    shown = f"{settings!r} {settings} {settings.model_dump()}"
    assert _CANARY not in shown
    for key in settings.key_encryption_keys:
        assert key.get_secret_value() not in shown
    # A wrong value beside them must not bring them into the message.
    environment(AUTH_WORKERS="none", AUTH_DATABASE_URL=f"postgresql://auth:{_CANARY}@db:port/auth")
    assert _problems().keys() == {"AUTH_WORKERS", "AUTH_DATABASE_URL"}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_the_command_that_a_refusal_names_makes_a_key_that_is_taken(environment: Environment) -> None:
    environment(AUTH_KEY_ENCRYPTION_KEYS=None)
    [line] = re.findall(r"make one with: (.*)", _problems()["AUTH_KEY_ENCRYPTION_KEYS"])
    for _ in range(20):  # until + and / have come up
        made = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout
        environment(AUTH_KEY_ENCRYPTION_KEYS=made)
        load_settings()


def test_the_url_of_redis_is_understood() -> None:
    address = parse_redis_url(
        "rediss+sentinel://auth:p%40%3Aw@a,[::1]:26380/main/3"
        "?sentinel_username=s&sentinel_password=%2C&ssl_check_hostname=false&protocol=3"
    )
    assert address.topology == "sentinel"
    assert address.hosts == (Host("a", 26379), Host("::1", 26380))
    assert (address.master, address.database, address.protocol) == ("main", 3, 3)
    assert (address.credentials.username, address.credentials.password) == ("auth", "p@:w")
    assert (address.sentinel_credentials.username, address.sentinel_credentials.password) == ("s", ",")
    assert address.tls == {"ssl_check_hostname": False}
    assert str(address) == "the master main of the Sentinels a:26379, [::1]:26380"
    assert "p@:w" not in repr(address)
    plain = parse_redis_url("redis+cluster://:p@a,b:7000")
    assert (plain.topology, plain.hosts, plain.tls) == ("cluster", (Host("a", 6379), Host("b", 7000)), None)
    assert (plain.credentials.username, plain.credentials.password) == (None, "p")
    assert str(parse_redis_url("redis://a/2")) == "a:6379/2"
