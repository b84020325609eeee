"""auth-service: issues RS256 access and refresh JWTs, and verifies them in other services.

Downstream services import `auth_service.verifier` and nothing else; every other package here is the server.
"""

__version__ = "0.1.0"
