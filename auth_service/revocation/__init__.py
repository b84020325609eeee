"""Revocation: the journal in PostgreSQL that outlives everything else. The feed to verifiers will stand beside it."""
