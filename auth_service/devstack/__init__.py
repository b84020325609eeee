"""A private PostgreSQL and a private Redis, found on this machine or taken from wheels: for `dev` and for the tests.

Both are real servers on loopback, kept in a folder of their own and stopped by whoever started them.
"""
