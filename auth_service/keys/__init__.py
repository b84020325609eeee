"""The signing keys: what one is, how they are stored, and the ring that each process holds in memory."""
