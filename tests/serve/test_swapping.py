"""What a swap leaves behind."""

import errno
import shutil
import threading
from pathlib import Path

import pytest

from serve.bundle.manifest import Bundle
from serve.errors import LaunchError
from serve.launcher.bundles import Served, copy_bundle
from serve.launcher.swapping import Swapper


class Server:
    """Serves a copy of each bundle, if there is room for it."""

    def __init__(self, home: Path, bundle: Bundle) -> None:
        self.served, self._home = Served(1, copy_bundle(home, bundle, 1), {}, {}), home

    def replace(self, bundle: Bundle, version: int) -> None:
        """Copy the bundle."""
        self.served = Served(version, copy_bundle(self._home, bundle, version), {}, {})

    def end(self, old: Served) -> None:
        """Nothing has to end."""


def test_a_failed_swap_leaves_nothing(
    small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that didn't find room is removed, so that the next swap finds it."""
    swapper = Swapper(Server(tmp_path, small_bundle), tmp_path, threading.Event())
    copyfile = shutil.copyfile

    def full_at_last(source: Path, copy: Path) -> None:
        if source.name == "encoder.onnx":
            raise OSError(errno.ENOSPC, "No space left on device")
        copyfile(source, copy)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full_at_last)
        with pytest.raises(LaunchError, match="No space left"):
            swapper.swap(str(small_bundle.folder))
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == ["1"]

    assert swapper.swap(str(small_bundle.folder))["digest"] == small_bundle.manifest.digest
