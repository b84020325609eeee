"""The two JWTs of the service: claims in, signed text out, and back. Who may have them is decided above."""
