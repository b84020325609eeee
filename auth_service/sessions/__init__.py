"""Sessions: one login and its family of refresh tokens, from opening through rotation to the end."""
