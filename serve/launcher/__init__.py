"""The parts of ``python -m serve`` that would be the same with another server.

settings.py     the command line and the PINHOLE_* variables
logs.py         log lines as text or JSON
ports.py        refuse an address that is taken, or that needs a gateway in front
proof.py        one process that proves the engine, before any server starts
readiness.py    find out whether the service is ready; the health check's command
watching.py     log READY, and end a service that stays broken
private.py      the private port: readiness, metadata, the map, metrics, swaps
metadata.py     the pages that describe the service and its model
metrics.py      the page of metrics
swap.py         the command that has a running service serve another bundle
swapping.py     what every server's swap has in common
bundles.py      the bundles that a running service keeps copies of
"""
