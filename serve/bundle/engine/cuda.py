"""CUDA calls that onnxruntime's Python API lacks: find a GPU, and page-lock host memory.

Both call the NVIDIA driver's own library, which every host with a GPU has.
"""

import ctypes
import logging
import math
import mmap
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

DRIVER = "libcuda.so.1"
PORTABLE = 1  # CU_MEMHOSTREGISTER_PORTABLE: locked for every context of this process


def has_gpu() -> bool:
    """Whether the NVIDIA driver is there and finds a GPU."""
    count = ctypes.c_int()
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return False
    return driver.cuInit(0) == 0 == driver.cuDeviceGetCount(ctypes.byref(count)) and count.value > 0


def locked_array(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Zeros in page-locked host memory, which the GPU reads and writes directly.

    Where the driver refuses to lock memory, the array lies in ordinary memory, which costs speed
    and nothing else; a warning is logged.

    Args:
        shape: of the array, which begins on a memory page of its own.
        dtype: of the array.
    """
    memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize)
    array = np.frombuffer(memory, dtype).reshape(shape)
    driver, address = ctypes.CDLL(DRIVER), ctypes.c_void_p(array.ctypes.data)
    fault = driver.cuMemHostRegister_v2(address, ctypes.c_size_t(array.nbytes), PORTABLE)
    if fault:
        logger.warning(
            "the driver doesn't lock %s bytes (CUDA error %d): copies to the GPU and back are slow",
            f"{array.nbytes:,}",
            fault,
        )
    else:
        weakref.finalize(memory, driver.cuMemHostUnregister, address).atexit = False
    return array
