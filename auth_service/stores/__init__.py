"""The two stores and the one clock: PostgreSQL, which is the truth, and Redis, which is fast and can be lost."""
