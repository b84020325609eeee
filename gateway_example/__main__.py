"""`python -m gateway_example`: the gateway on `GATEWAY_LISTEN`, for the issuer that `AUTH_ISSUER` names.

Its metrics are served where `GATEWAY_METRICS_LISTEN` says, and nowhere else: on a port of their own, which belongs to
Prometheus and is never behind the ingress.
"""

import os
import sys

import uvicorn
from prometheus_client import start_http_server

from auth_service.verifier import Verifier
from gateway_example.app import create_app


def main() -> None:
    try:
        verifier = Verifier.from_env()
    except ValueError as exc:
        sys.exit(f"gateway_example: {exc}")
    host, port = _address("GATEWAY_LISTEN", "127.0.0.1:8001")
    if "GATEWAY_METRICS_LISTEN" in os.environ:
        metrics_host, metrics_port = _address("GATEWAY_METRICS_LISTEN", "")
        start_http_server(metrics_port, metrics_host)
    uvicorn.run(
        create_app(verifier),
        host=host,
        port=port,
        ws="websockets-sansio",
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=2,  # an open WebSocket ends only when it is told to
    )


def _address(name: str, default: str) -> tuple[str, int]:
    host, _, port = os.environ.get(name, default).rpartition(":")
    if not port.isdecimal():
        sys.exit(f"gateway_example: {name} must be host:port")
    return host.strip("[]"), int(port)


if __name__ == "__main__":
    main()
