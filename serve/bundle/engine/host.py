"""What this host offers an engine: cores, and bfloat16 arithmetic."""

import os
from pathlib import Path


def usable_cores() -> int:
    """How many cores this process may use: its affinity, limited by the cgroup's CPU quota."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = affinity or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def processor_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16; emulating it would be slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags
