"""What this host offers: cores, memory, and bfloat16 arithmetic."""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")  # in a container, its own limits


def usable_cores() -> int:
    """How many cores this process may use: its affinity, limited by the cgroup's CPU quota."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = affinity or 1
    quota = cgroup("cpu.max") or cgroup("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")
    if not quota or quota[0] < 0:  # version 1 of cgroups has -1 where there is no limit
        return cores
    return max(1, min(cores, quota[0] // quota[1]))


def usable_memory() -> int:
    """How many bytes of memory this process may use: the host's, limited by the cgroup."""
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(host, *(cgroup("memory.max") or cgroup("memory/memory.limit_in_bytes") or [host]))


def cgroup(*files: str) -> list[int]:
    """The numbers in files of the cgroup, version 2 or 1; none where there is no file or limit."""
    try:
        return [int(word) for file in files for word in (CGROUP / file).read_text().split()]
    except (OSError, ValueError):  # ValueError: version 2 has "max" where there is no limit
        return []


def processor_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16; emulating it would be slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags
