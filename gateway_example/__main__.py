"""`python -m gateway_example`: the gateway on `GATEWAY_LISTEN`, for the issuer that `AUTH_ISSUER` names."""

import os
import sys

import uvicorn

from auth_service.verifier import Verifier
from gateway_example.app import create_app


def main() -> None:
    try:
        verifier = Verifier.from_env()
    except ValueError as exc:
        sys.exit(f"gateway_example: {exc}")
    host, _, port = os.environ.get("GATEWAY_LISTEN", "127.0.0.1:8001").rpartition(":")
    if not port.isdecimal():
        sys.exit("gateway_example: GATEWAY_LISTEN must be host:port")
    uvicorn.run(
        create_app(verifier),
        host=host.strip("[]"),
        port=int(port),
        ws="websockets-sansio",
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=2,  # an open WebSocket ends only when it is told to
    )


if __name__ == "__main__":
    main()
