"""The calls to CUDA's driver, tested on a fake driver."""

import ctypes
import gc
import logging
from types import SimpleNamespace

import numpy as np
import pytest

from serve.bundle.engine.cuda import has_gpu, locked_array


class FakeDriver:
    """Finds ``gpus`` and locks memory, or answers ``fault``; remembers what is locked."""

    def __init__(self, gpus: int = 1, fault: int = 0) -> None:
        self.gpus, self.fault = gpus, fault
        self.locked: dict[int | None, int] = {}

    def cuInit(self, flags: int) -> int:
        return self.fault

    def cuDeviceGetCount(self, count: object) -> int:
        count._obj.value = self.gpus
        return self.fault

    def cuMemHostRegister_v2(
        self, address: ctypes.c_void_p, size: ctypes.c_size_t, flags: int
    ) -> int:
        if not self.fault:
            self.locked[address.value] = size.value
        return self.fault

    def cuMemHostUnregister(self, address: ctypes.c_void_p) -> int:
        del self.locked[address.value]
        return 0


def load(monkeypatch: pytest.MonkeyPatch, driver: FakeDriver) -> None:
    """Make ``driver`` what ctypes loads as the driver's library."""
    fake = SimpleNamespace(**{name: getattr(ctypes, name) for name in dir(ctypes)})
    fake.CDLL = lambda name: driver
    monkeypatch.setattr("serve.bundle.engine.cuda.ctypes", fake)


def test_gpu_is_one_that_the_driver_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no GPU if the driver finds none, or doesn't start."""
    for driver, found in (
        (FakeDriver(), True),
        (FakeDriver(gpus=0), False),
        (FakeDriver(fault=100), False),
    ):
        load(monkeypatch, driver)
        assert has_gpu() is found


def test_memory_is_locked_as_long_as_its_array_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole array is page-aligned and locked until the last view of it is gone."""
    driver = FakeDriver()
    load(monkeypatch, driver)

    array = locked_array((3, 5), np.dtype(np.float32))
    view = array[1:]

    assert array.shape == (3, 5)
    assert not array.any()
    assert array.ctypes.data % 4096 == 0
    assert driver.locked == {array.ctypes.data: array.nbytes}
    array[:] = 1
    del array
    gc.collect()
    assert driver.locked
    del view
    gc.collect()
    assert not driver.locked


def test_driver_that_refuses_costs_speed_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the driver locks no memory, the array works all the same, and a warning is logged."""
    load(monkeypatch, FakeDriver(fault=1))

    with caplog.at_level(logging.WARNING, "serve"):
        array = locked_array((2,), np.dtype(np.uint8))
    array[:] = 7

    assert array.tolist() == [7, 7]
    assert "doesn't lock 2 bytes (CUDA error 1)" in caplog.text
