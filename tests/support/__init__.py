"""What the tests stand on: real stores, the service in process or as processes, and a proxy that can misbehave."""
