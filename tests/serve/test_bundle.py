"""A bundle whose files aren't what its manifest says is not loaded."""

import json
import shutil
from pathlib import Path

import pytest

from serve.bundle.errors import BundleError
from serve.bundle.manifest import FILES, Bundle, load_bundle


@pytest.fixture
def copy(small_bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle to damage."""
    return Path(shutil.copytree(small_bundle.folder, tmp_path / "bundle"))


def test_bundle_reads_back(small_bundle: Bundle) -> None:
    """What export wrote is what load_bundle returns."""
    assert load_bundle(small_bundle.folder) == small_bundle
    assert small_bundle.manifest.image.shape == (1, 28, 28)


@pytest.mark.parametrize("name", FILES)
def test_changed_file_is_named(copy: Path, name: str) -> None:
    """A file with a flipped bit, a byte less, or missing altogether, is refused by its name."""
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} was changed"):
        load_bundle(copy)

    (copy / name).write_bytes(data[:-1])
    with pytest.raises(BundleError, match=f"{name} was changed"):
        load_bundle(copy)

    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        load_bundle(copy)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"schema": 3}', "damaged: 'version'"),
        ('{"schema": 1}', "schema 1"),
        ('{"schema": 99}', "schema 99"),
    ],
)
def test_damaged_manifest_is_refused(copy: Path, text: str, message: str) -> None:
    """A manifest that isn't JSON or an object, lacks fields or has another schema is refused."""
    (copy / "manifest.json").write_text(text)

    with pytest.raises(BundleError, match=message):
        load_bundle(copy)


@pytest.mark.parametrize("version", ["", "1.0\r", "a b", "\u03b2", "v" * 65])
def test_version_fits_into_a_header(copy: Path, version: str) -> None:
    """Every reply has it in a header, where one server sends less than another."""
    fields = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(fields | {"version": version}))

    with pytest.raises(BundleError, match="it must be 1 to 64 printable ASCII characters"):
        load_bundle(copy)


def test_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    """A folder without a manifest, such as a half-written bundle, is refused."""
    with pytest.raises(BundleError, match="is no bundle"):
        load_bundle(tmp_path)


def test_manifest_holds_no_path(small_bundle: Bundle) -> None:
    """The manifest holds no path, so it doesn't vary from host to host."""
    fields = json.loads((small_bundle.folder / "manifest.json").read_text())

    assert str(small_bundle.folder.parent) not in json.dumps(fields)
