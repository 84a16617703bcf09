"""``pinhole health``: prove that the service embeds."""

import argparse

from pinhole.commands import Commands, add_command, add_service, connect


def add(commands: Commands) -> None:
    """Add the command."""
    add_service(
        add_command(commands, "health", "prove that the service embeds; show its model", run)
    )


def run(options: argparse.Namespace) -> int:
    """Embed one pixel and tell by which model."""
    with connect(options) as client:
        found = client.health()
    print(
        f"{options.url} embeds: model version {found.version}, digest {found.digest[:12]}, "
        f"{found.precision}, {found.embedding_width} numbers, {found.latency_ms:.0f} ms"
    )
    return 0
