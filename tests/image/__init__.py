"""The container image, built on a base made here: `make image-test` runs it, the suite does not."""
