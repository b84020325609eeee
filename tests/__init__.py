"""The tests, through the public interfaces, on a real PostgreSQL and a real Redis."""
