"""``pinhole health``: prove that the service embeds."""

import argparse
import json
from dataclasses import asdict

from pinhole.commands import Commands, add_command, add_json, add_service, connect

EPILOG = """
examples:
  pinhole health && echo fine
  pinhole health --json

--json: url, digest, version, precision, embedding_width and latency_ms
"""


def add(commands: Commands) -> None:
    """Add the command."""
    about = "prove that the service embeds; show its model"
    command = add_command(commands, "health", about, run, EPILOG)
    add_service(command)
    add_json(command, "one JSON document")


def run(options: argparse.Namespace) -> int:
    """Have one pixel embedded, and print which model did it; returns the exit code."""
    with connect(options) as client:
        found = client.health()
    if options.json:
        print(json.dumps({"url": client.url, **asdict(found)}))
        return 0
    print(
        f"{client.url} embeds: model version {found.version}, digest {found.digest[:12]}, "
        f"{found.precision}, {found.embedding_width} numbers, {found.latency_ms:.0f} ms"
    )
    return 0
