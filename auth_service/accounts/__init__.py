"""Accounts: who a user is, how they prove it, and what changing an account does to its sessions."""
