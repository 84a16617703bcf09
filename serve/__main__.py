"""``python -m serve BUNDLE``: serve a bundle with TorchServe until told to stop."""

import logging
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

from serve.bundle.errors import ServeError
from serve.bundle.manifest import Bundle, load_bundle
from serve.launcher.ports import check_address
from serve.launcher.proof import prove_engine
from serve.launcher.settings import Settings, parse, settings_of
from serve.launcher.watching import announce, watch
from serve.torchserve.instance import Instance

logger = logging.getLogger("serve")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parse(sys.argv[1:] if arguments is None else arguments, os.environ)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    stopping = stop_on_signals()
    try:
        settings = settings_of(options)
        check_address(settings)
        bundle = load_bundle(options.bundle)
        prove_engine(bundle, settings)
        if not stopping.is_set():
            run(bundle, settings, stopping)
    except (ServeError, OSError) as error:  # OSError: no temporary folder, or no room in it
        print(f"serve: {error}", file=sys.stderr)
        return 1
    return 0


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM, SIGINT and SIGHUP set."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # A thread sets the event: the signal interrupts the main thread, which may hold its lock.
        signal.signal(number, lambda *_: threading.Thread(target=stopping.set).start())
    return stopping


def run(bundle: Bundle, settings: Settings, stopping: threading.Event) -> None:
    """Serve until ``stopping`` is set.

    Raises:
        ServeError: TorchServe could not be started, died, or had an endpoint without a ready worker
            for too long.
    """
    with tempfile.TemporaryDirectory(prefix="pinhole-", ignore_cleanup_errors=True) as home:
        instance = Instance(bundle, settings, Path(home), stopping)
        try:
            watch(
                instance.process,
                instance.readiness,
                stopping,
                on_first_ready=lambda: announce(bundle.manifest, settings),
            )
        finally:
            instance.stop()
    logger.info("stopped")


if __name__ == "__main__":
    sys.exit(main())
