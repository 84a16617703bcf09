"""How a long command ends early: at Ctrl-C, SIGTERM or SIGHUP, once what is done is written."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows lacks the last.
LEAVE_S = 0.2  # After Ctrl-C, threads that wait for a service are given this long to end.


@contextmanager
def telling_interrupts() -> Iterator[Callable[[], None]]:
    """Say at once that Ctrl-C was heard: what is done is written first. A second one is final.

    SIGTERM and SIGHUP are taken as Ctrl-C is; what is ignored, as SIGHUP under nohup, stays so.
    Python drops an exception that is raised in a finaliser, and an interrupted lock may raise
    another exception. So the function that is yielded, which the job calls now and then, raises the
    interruption again; and however the job ends after an interruption, it was interrupted.
    """
    told: list[int] = []

    def stop(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        told.append(number)
        tell("stopping")
        raise KeyboardInterrupt(number)

    def check() -> None:
        if told:
            raise KeyboardInterrupt(told[0])

    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    heard = [number for number, action in before.items() if action is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, stop)
    try:
        yield check
    finally:
        for number in heard:
            signal.signal(number, before[number])
        check()


def leave_threads(code: int) -> None:
    """End the process if threads still wait for a service: Python itself would wait for them."""
    deadline, main = time.monotonic() + LEAVE_S, threading.main_thread()
    while any(
        each.is_alive() and not each.daemon for each in threading.enumerate() if each is not main
    ):
        if time.monotonic() > deadline:
            sys.stderr.flush()
            os._exit(code)
        time.sleep(0.01)


def tell(line: str) -> None:
    """Show a line to the user, on stderr."""
    print(f"pinhole: {line}", file=sys.stderr)
