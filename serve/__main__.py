"""``python -m serve BUNDLE``: serve a bundle until told to stop."""

import fcntl
import logging
import os
import resource
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

from serve.bundle.distribution import missing_module
from serve.bundle.errors import ServeError
from serve.bundle.manifest import Bundle, load_bundle
from serve.errors import LaunchError
from serve.launcher.logs import stderr_handler
from serve.launcher.ports import check_address
from serve.launcher.settings import SERVERS, Settings, parse, settings_of
from serve.launcher.watching import announce, watch

logger = logging.getLogger("serve")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parse(sys.argv[1:] if arguments is None else arguments, os.environ)
    logging.basicConfig(level=logging.INFO, handlers=[stderr_handler(options.log_format)])
    stopping = stop_on_signals()
    allow_many_connections()
    try:
        settings = settings_of(options)
        check_address(settings)
        check_temporary_folder(os.environ.get("TMPDIR"))
        bundle = load_bundle(options.bundle)
        run(bundle, settings, stopping)
    except (ServeError, OSError) as error:  # OSError: no temporary folder, or no room in it
        if options.log_format == "json":
            logger.critical("%s", error)
        else:
            print(f"serve: {error}", file=sys.stderr)
        return 1
    return 0


def allow_many_connections() -> None:
    """Let this process open as many files and connections as its host lets it, not only 1,024."""
    if sys.platform == "linux":
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(ValueError, OSError):  # the kernel's own limit (fs.nr_open) may be lower
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def check_temporary_folder(asked: str | None) -> None:
    """Raise LaunchError where tempfile would silently take another folder than this one."""
    if not asked:
        return
    try:
        with tempfile.TemporaryFile(dir=asked) as file:
            file.write(b"probe")
    except OSError as error:
        fault = f"TMPDIR is {asked}, which can't be written to: {error.strerror}"
        raise LaunchError(fault) from error


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM, SIGINT and SIGHUP set; what is ignored, as under nohup, stays so."""
    stopping = threading.Event()
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for number in (each for each in numbers if signal.getsignal(each) is not signal.SIG_IGN):
        # A thread sets the event: the signal interrupts the main thread, which may hold its lock.
        signal.signal(number, lambda *_: threading.Thread(target=stopping.set).start())
    return stopping


def run(bundle: Bundle, settings: Settings, stopping: threading.Event) -> None:
    """Serve until ``stopping`` is set.

    Raises:
        ServeError: the server could not be started, died, or had an endpoint without a ready worker
            for too long.
    """
    with (
        tempfile.TemporaryDirectory(prefix="pinhole-", ignore_cleanup_errors=True) as home,
        locked(home),
    ):
        if settings.processes > 1:
            # Where all processes write their counts: prometheus_client asks as it is imported.
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = home
        try:
            start = import_module(SERVERS[settings.server]).Instance
        except ImportError as error:
            raise LaunchError(missing_module(f"--server {settings.server}", error)) from error
        instance = start(bundle, settings, Path(home), stopping)
        try:
            watch(instance, stopping, lambda: announce(bundle.manifest, settings))
        finally:
            instance.stop()
    logger.info("stopped")


@contextmanager
def locked(folder: str) -> Iterator[None]:
    """Hold a lock on a folder, which keeps systemd from emptying it.

    systemd-tmpfiles removes files in /tmp and /var/tmp that are some days old, but leaves alone a
    folder that somebody has locked by flock (tmpfiles.d(5), "Age"). The lock ends with the process.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
