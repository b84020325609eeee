"""The edge: what is true of every request before an endpoint sees it, and of every answer after."""
