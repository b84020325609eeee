"""Independent clients, in Python and JavaScript, against the service as it is served."""
