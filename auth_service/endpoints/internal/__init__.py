"""The internal port: health, metrics and the admin API. Never behind the ingress."""
