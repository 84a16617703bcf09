"""The bundles that a running service keeps copies of: what it serves, and what it served before.

The copies lie in the service's own folder, so that nobody's export changes what is served.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serve.bundle.manifest import Bundle, load_bundle
from serve.canary import Canary
from serve.endpoints import make_canaries
from serve.errors import LaunchError
from serve.launcher.metadata import pages


@dataclass(frozen=True)
class Served:
    """A bundle that is served, and what is made of it.

    Attributes:
        version: the service's number for the bundle, never used twice.
        bundle: the service's own copy.
        pages: see serve.launcher.metadata.pages.
        canaries: endpoint → canary.
    """

    version: int
    bundle: Bundle
    pages: Mapping[str, bytes]
    canaries: Mapping[str, Canary]


def bundle_folder(home: Path, version: int) -> Path:
    """Where the copy of the bundle of a version lies."""
    return home / "bundles" / str(version)


def copy_bundle(home: Path, bundle: Bundle, version: int) -> Bundle:
    """Copy a bundle into ``home``; returns the copy, whose checksums are right.

    Raises:
        BundleError: the bundle changed as it was copied.
        LaunchError: the copy can't be written, for lack of room for example.
    """
    copy = bundle_folder(home, version)
    try:
        copy.mkdir(parents=True)
        for name in ("manifest.json", *bundle.manifest.files):
            shutil.copyfile(bundle.folder / name, copy / name)
    except OSError as error:
        raise LaunchError(f"can't copy {bundle.folder} to {copy}: {error.strerror}") from error
    return load_bundle(copy)


def describe(copy: Bundle, version: int, precision: str) -> Served:
    """What a service makes of its copy of a bundle."""
    return Served(version, copy, pages(copy, precision), make_canaries(copy, precision))
