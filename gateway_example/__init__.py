"""The example downstream service: it verifies what auth-service issued, and imports only the verifier of it."""
