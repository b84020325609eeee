"""The page of the gateway example in a real Chromium, against the real services. `make e2e` runs these."""
