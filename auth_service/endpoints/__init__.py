"""The HTTP interface: each endpoint parses, authenticates, acts and responds. The rules are not here."""
