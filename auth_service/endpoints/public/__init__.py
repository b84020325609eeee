"""The public port: accounts, sessions, discovery and documentation. One file per resource."""
