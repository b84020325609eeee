"""The internal port: health and metrics. Never behind the ingress."""
