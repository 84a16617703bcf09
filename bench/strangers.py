"""An open loop: each request is sent at its own time, whether or not the last was answered.

A closed loop such as wrk stops sending while its connections wait, and then corrects its figures by
guessing what it would have sent. Only an open loop shows how long small requests wait for large.
"""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import requests

from bench.wrk import TIMEOUT_S, Load, Target
from serve.launcher.readiness import loopback_session

MOST_WAITING = 64  # requests that can wait at a time; fewer ever do


def measure(target: Target, rate: float, seconds: float) -> Load:
    """POST ``rate`` times a second, evenly; latencies count from the moment each was due."""
    body, kept = target.body.read_bytes(), threading.local()
    faults: Counter[str] = Counter()

    def send(due: float) -> float:
        if not hasattr(kept, "session"):
            kept.session = loopback_session()
        try:
            reply = kept.session.post(target.url, body, headers=target.headers, timeout=TIMEOUT_S)
            faults["non_2xx"] += not reply.ok
        except requests.RequestException:
            faults["no_answer"] += 1
        return time.perf_counter() - due

    started, pending = time.perf_counter() + 0.1, []
    with ThreadPoolExecutor(MOST_WAITING) as pool:
        for number in range(int(rate * seconds)):
            due = started + number / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            pending.append(pool.submit(send, due))
        latencies_ms = [future.result() * 1e3 for future in pending]
    p50_ms, p99_ms = np.percentile(latencies_ms, [50, 99])
    faults = +faults  # without the zeros
    return Load(len(pending), len(pending) / rate, float(p50_ms), float(p99_ms), faults)
