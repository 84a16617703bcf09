"""TorchServe's own upper limit: our configuration, with a handler that does nothing.

    python -m bench.peers.nothing_service build/mnist --port 9080

Takes the options of ``python -m serve``. No launcher sends it canaries.
"""

import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from serve.bundle.manifest import load_bundle
from serve.launcher.settings import parse, settings_of
from serve.torchserve import process
from serve.torchserve.store import add_models

HANDLER = "bench.peers.nothing_handler"


def main() -> int:
    """Serve until SIGTERM; returns TorchServe's exit code."""
    options = parse(sys.argv[1:], {})
    settings = settings_of(options)
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])  # so that workers find the handler
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        add_models(Path(home), load_bundle(options.bundle), 1, settings)
        for manifest in Path(home).glob("models/*/MAR-INF/MANIFEST.json"):
            replace_handler(manifest)
        server = process.start(settings, Path(home))
        try:
            return server.wait()
        finally:
            process.stop(server)


def replace_handler(path: Path) -> None:
    """Name the handler that does nothing in a model's manifest."""
    manifest = json.loads(path.read_text())
    manifest["model"]["handler"] = HANDLER
    path.write_text(json.dumps(manifest))


if __name__ == "__main__":
    sys.exit(main())
