"""What ``python -m serve`` needs whichever server it starts.

settings.py     the command line and the PINHOLE_* variables
ports.py        refuse an address that is taken, or that would publish an open service
proof.py        one process that proves the engine, before any server starts
readiness.py    readiness that is true; also the health check's command
watching.py     READY, and the end of a service that can't be helped
private.py      the private port: readiness, metadata, the map, metrics, swaps
metadata.py     what the service says of itself
metrics.py      the page of metrics
swap.py         the command that has a running service serve another bundle
loopback.py     HTTP sessions for addresses of this host
"""
