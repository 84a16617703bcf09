"""Prove once, before workers take a bundle, that the engine starts and gives the right answers.

``python -m serve.launcher.proof BUNDLE RUNTIME DEVICE PRECISION`` exits 0, or says why not.
"""

import subprocess
import sys
from pathlib import Path

from serve.bundle.engine.checks import check_golden
from serve.bundle.engine.opening import open_engine
from serve.bundle.errors import ServeError
from serve.bundle.manifest import Bundle, load_bundle
from serve.errors import LaunchError
from serve.launcher.settings import Settings

PROOF_S = 120.0


def prove_engine(bundle: Bundle, settings: Settings) -> None:
    """Open the engine and check it on the golden images, in a process that ends afterwards.

    Each worker checks the same as it starts, but a fault that all workers share is better reported
    once, at once. A process of its own keeps the runtime's memory out of the launcher.

    Raises:
        LaunchError: the engine can't start, answers wrongly, or crashed.
    """
    arguments = [str(bundle.folder), settings.runtime, settings.device, settings.precision]
    command = [sys.executable, "-m", "serve.launcher.proof", *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=PROOF_S,
            start_new_session=True,  # so that Ctrl-C reaches the launcher alone
        )
    except subprocess.TimeoutExpired as error:
        raise LaunchError(f"{settings.runtime} gave no answer within {PROOF_S:.0f} s") from error
    if done.returncode != 0:
        last = done.stderr.strip().rpartition("\n")[2]
        raise LaunchError(last or f"{settings.runtime} crashed (exit code {done.returncode})")


def main(folder: str, runtime: str, device: str, precision: str) -> int:
    """Prove the engine in this process; returns the exit code."""
    try:
        bundle = load_bundle(Path(folder))
        check_golden(open_engine(bundle, runtime, device, precision), bundle)
    except ServeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
