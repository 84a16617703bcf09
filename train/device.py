"""Where to train, how precisely, and how to keep glibc from wasting half of the CPU's time."""

import ctypes
import sys

import torch

from train.config import TrainConfig
from train.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """Resolve ``auto | cpu | cuda``; CUDA that was asked for by name must be there.

    Raises:
        ConfigError: ``cuda`` on a machine without it.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, but this torch finds no CUDA device")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def choose_precision(config: TrainConfig) -> str:
    """Resolve ``auto``: bf16 where the processor multiplies it natively, else fp32."""
    if config.precision != "auto":
        return config.precision
    if choose_device(config.device).type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    abilities = torch.cpu.get_capabilities()
    return "bf16" if abilities.get("avx512_bf16") or abilities.get("amx_bf16") else "fp32"


def keep_freed_memory() -> None:
    """Ask glibc to reuse the memory of freed tensors instead of returning it to the kernel.

    Every activation takes a few megabytes. By default glibc maps them anew on each step, and the
    kernel zeroes them page by page: 20,000 page faults a step. The three settings (mallopt(3)) are
    "no mmap", "never trim" and "grow by 256 MiB". Without glibc this function does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4  # <malloc.h>
        for setting, value in (
            (m_mmap_max, 0),
            (m_trim_threshold, 2**31 - 1),
            (m_top_pad, 1 << 28),
        ):
            mallopt(setting, value)
