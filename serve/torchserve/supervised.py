"""Run a program that ends with the launcher, even where the launcher is killed.

``python -m serve.torchserve.supervised LAUNCHER PROGRAM ARGUMENTS`` becomes the program, which
Linux then kills as soon as the launcher is gone (PR_SET_PDEATHSIG, see prctl(2)). A JVM that
outlives its launcher would go on serving unwatched, on a port that the next launcher needs.
"""

import ctypes
import os
import signal
import sys

SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG in linux/prctl.h


def main(launcher: str, program: str, *arguments: str) -> None:
    """Become the program; returns only if the launcher's process, ``launcher``, is gone."""
    if sys.platform == "linux":
        # The kernel means the thread that started this process: the launcher's main thread, which
        # lives as long as the launcher.
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() == int(launcher):  # else it ended before the kernel was asked
        os.execv(program, [program, *arguments])  # noqa: S606 - it is the launcher that calls


if __name__ == "__main__":
    main(*sys.argv[1:])
