"""What a Redis that asks for TLS and for a user is started with, and what whoever speaks to it must bring."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_ADMIN, _ADMIN_PASSWORD = "admin", "of-the-test"


@dataclass(frozen=True, slots=True)
class Security:
    """A certificate for 127.0.0.1 and the authority that signed it, and the ACL rules of the users there are."""

    authority: Path
    certificate: Path
    key: Path
    rules: tuple[str, ...]
    sentinel_rules: tuple[str, ...]

    @classmethod
    def made(cls, folder: Path, *, rules: tuple[str, ...], sentinel_rules: tuple[str, ...] = ()) -> Self:
        """Rules are as in an ACL file, each of one user. Beside these there is one of the test's own."""
        authority, certificate, key = (folder / name for name in ("ca.pem", "redis.pem", "redis.key"))
        _write_certificates(authority, certificate, key)
        return cls(authority, certificate, key, rules, sentinel_rules)

    def options(self, port: int, *, sentinel: bool) -> list[str | Path]:
        """For the server on this port."""
        options: list[str | Path] = ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"]
        options += ["--tls-cert-file", self.certificate, "--tls-key-file", self.key]
        options += ["--tls-ca-cert-file", self.authority, "--tls-replication", "yes"]
        own = ("user default off", f"user {_ADMIN} on >{_ADMIN_PASSWORD} ~* &* +@all")
        for rules in (*own, *(self.sentinel_rules if sentinel else self.rules)):
            options += [f"--{rules.split()[0]}", *rules.split()[1:]]
        if not sentinel:
            options += ["--masteruser", _ADMIN, "--masterauth", _ADMIN_PASSWORD]
            options += ["--enable-debug-command", "yes"]  # so that it is the rights that forbid it
        return options

    def sentinel_lines(self, master: str) -> str:
        return f"sentinel auth-user {master} {_ADMIN}\nsentinel auth-pass {master} {_ADMIN_PASSWORD}\n" + (
            f"sentinel sentinel-user {_ADMIN}\nsentinel sentinel-pass {_ADMIN_PASSWORD}\n"
        )

    @property
    def client_options(self) -> Mapping[str, Any]:
        """Those of the test's own user."""
        return {
            "ssl": True,
            "ssl_ca_certs": str(self.authority),
            "username": _ADMIN,
            "password": _ADMIN_PASSWORD,
        }


def _write_certificates(authority: Path, certificate: Path, key: Path) -> None:
    signing, served = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("test authority", "redis")]
    now = datetime.now(UTC)

    def signed(name: x509.Name, public: ec.EllipticCurvePublicKey, *, is_authority: bool) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(names[0])
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
        )
        return builder.sign(signing, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    authority.write_bytes(signed(names[0], signing.public_key(), is_authority=True))
    certificate.write_bytes(signed(names[1], served.public_key(), is_authority=False))
    key.write_bytes(
        served.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
