"""What AUTH_REDIS_URL may say: one server, the master that Sentinels name, or a cluster.

    redis://[user:password@]host[:port][/database]
    redis+sentinel://[user:password@]host[:port][,host[:port]...]/master-name[/database]
    redis+cluster://[user:password@]host[:port][,host[:port]...]

`rediss` in place of `redis` is TLS, to the Sentinels too. Who connects, and how, is `stores/redis.py`'s. No error here
repeats a value: it may be a secret.
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, unquote

Topology = Literal["single", "sentinel", "cluster"]

_FORMS: dict[Topology, str] = {
    "single": "redis://host:6379/0",
    "sentinel": "redis+sentinel://host:26379,host:26379/master-name",
    "cluster": "redis+cluster://host:6379,host:6379",
}
_PORTS: dict[Topology, int] = {"single": 6379, "sentinel": 26379, "cluster": 6379}
_URL = re.compile(
    r"(?P<scheme>rediss?)(\+(?P<topology>sentinel|cluster))?://"
    r"((?P<credentials>[^/?#@]*)@)?(?P<hosts>[^/?#@]*)(?P<path>/[^?#@]*)?(\?(?P<options>[^#@]*))?",
    re.ASCII,
)
_HOST = re.compile(r"(\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(:(?P<port>[0-9]{1,5}))?", re.ASCII)
_MASTER = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)  # what a Sentinel takes as a name

_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")


@dataclass(frozen=True, slots=True)
class Host:
    """Where a server listens."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


@dataclass(frozen=True, slots=True)
class Credentials:
    """As whom to connect; None: as the default user, or without a password."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A URL, understood. `hosts`: the server, the Sentinels, or some nodes of the cluster."""

    topology: Topology
    hosts: tuple[Host, ...]
    credentials: Credentials = Credentials()
    sentinel_credentials: Credentials = Credentials()
    master: str | None = None
    """What the Sentinels call the master."""
    database: int = 0
    tls: Mapping[str, str | bool] | None = None
    """None: no TLS. Else what differs from the defaults, by the names that redis-py has for it."""
    protocol: int | None = None

    def __str__(self) -> str:
        """Where it is, without who one is there."""
        hosts = ", ".join(map(str, self.hosts))
        if self.topology == "sentinel":
            return f"the master {self.master} of the Sentinels {hosts}"
        if self.topology == "cluster":
            return f"the cluster of {hosts}"
        return f"{hosts}/{self.database}"


def parse_redis_url(text: str) -> RedisAddress:
    """Raises ValueError, which says what is wrong and how it should look."""
    parts = _URL.fullmatch(text)
    if parts is None:
        if not re.match(r"rediss?(\+(sentinel|cluster))?://", text):
            raise ValueError(f"must be a URL like {', '.join(_FORMS.values())}; rediss... with TLS")
        # A bare / ? # or @ in a password ends it early, and the rest of it would be taken for a host or a name.
        raise ValueError(f"is not a URL like {_FORMS['single']}; write what is special in a password as %XX")
    topology: Topology = parts["topology"] or "single"  # type: ignore[assignment]
    master, database = _path(parts["path"] or "", topology)
    options = _options(parts["options"] or "", topology)
    return RedisAddress(
        topology=topology,
        hosts=_hosts(parts["hosts"], topology),
        credentials=_credentials(parts["credentials"], topology),
        sentinel_credentials=Credentials(options.get("sentinel_username"), options.get("sentinel_password")),
        master=master,
        database=database,
        tls=_tls(options, asked_for=parts["scheme"] == "rediss"),
        protocol=int(options["protocol"]) if "protocol" in options else None,
    )


def _hosts(text: str, topology: Topology) -> tuple[Host, ...]:
    hosts = []
    for item in text.split(","):
        found = _HOST.fullmatch(item)
        if found is None or not 0 < int(found["port"] or _PORTS[topology]) < 65536:
            several = "hosts as host:port, with commas between them" if topology != "single" else "a host as host:port"
            raise ValueError(f"must name {several}, and write what is special in a password as %XX")
        hosts.append(Host(found["v6"] or found["name"], int(found["port"] or _PORTS[topology])))
    if topology == "single" and len(hosts) > 1:
        raise ValueError("must name one host: several need redis+sentinel:// or redis+cluster://")
    return tuple(hosts)


def _credentials(text: str | None, topology: Topology) -> Credentials:
    if text is None:
        return Credentials()
    username, colon, password = text.partition(":")
    if not colon or ":" in password:
        scheme = _FORMS[topology].partition("://")[0]
        raise ValueError(
            f"must name the user as {scheme}://user:password@ or {scheme}://:password@,"
            " with what is special in a password as %XX"
        )
    return Credentials(unquote(username) or None, unquote(password))


def _path(text: str, topology: Topology) -> tuple[str | None, int]:
    """The name of the master, and the number of the database."""
    names = text.removeprefix("/").split("/") if text.removeprefix("/") else []
    master = None
    if topology == "sentinel":
        master = names.pop(0) if names else ""
        if not _MASTER.fullmatch(master):
            raise ValueError(f"must name the master, as the Sentinels call it: {_FORMS['sentinel']}")
    if topology == "cluster" and names not in ([], ["0"]):
        raise ValueError(f"must end after the hosts, since a cluster has no numbered databases: {_FORMS['cluster']}")
    if len(names) > 1 or (names and not re.fullmatch(r"[0-9]{0,9}", names[0])):
        raise ValueError(f"must end in the number of a database, or in none: {_FORMS[topology]}")
    return master, int(names[0]) if names and names[0] else 0


def _options(text: str, topology: Topology) -> dict[str, str]:
    pairs = parse_qsl(text, keep_blank_values=True)
    options = dict(pairs)
    known = ("protocol", *_TLS_OPTIONS, *(_SENTINEL_OPTIONS if topology == "sentinel" else ()))
    # A misspelt option must not mean "without TLS" or "without a password" in silence.
    if not options.keys() <= set(known) or len(options) < len(pairs):
        raise ValueError(f"understands only the options {', '.join(known)} after the ?, each once")
    if options.get("protocol", "2") not in ("2", "3"):
        raise ValueError("protocol must be 2 or 3")
    if "sentinel_username" in options and "sentinel_password" not in options:
        raise ValueError("sentinel_username needs a sentinel_password")
    return options


def _tls(options: Mapping[str, str], *, asked_for: bool) -> Mapping[str, str | bool] | None:
    given: dict[str, str | bool] = {name: options[name] for name in _TLS_OPTIONS if name in options}
    if not asked_for:
        if given:
            raise ValueError("has options for TLS: they need rediss:// in place of redis://")
        return None
    if given.get("ssl_cert_reqs", "required") not in ("required", "optional", "none"):
        raise ValueError("ssl_cert_reqs must be required, optional or none")
    if given.get("ssl_check_hostname", "true") not in ("true", "false"):
        raise ValueError("ssl_check_hostname must be true or false")
    if "ssl_keyfile" in given and "ssl_certfile" not in given:
        raise ValueError("ssl_keyfile needs an ssl_certfile")
    if "ssl_check_hostname" in given:
        given["ssl_check_hostname"] = given["ssl_check_hostname"] == "true"
    try:
        context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    except OSError as exc:
        raise ValueError(f"ssl_ca_certs must name a readable PEM file ({type(exc).__name__})") from None
    if "ssl_certfile" in options:
        try:
            context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"), password="")
        except OSError as exc:
            raise ValueError(
                f"ssl_certfile and ssl_keyfile must name readable PEM files that belong together ({type(exc).__name__})"
            ) from None
    return given
