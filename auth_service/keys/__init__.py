"""The signing keys: what one is, when it signs, how they are stored, and the ring that each process holds in memory."""
