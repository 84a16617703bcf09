"""The folder that TorchServe runs in: its model store, and the files beside it.

All of it lies in one private temporary folder, the service's *home*, so that several services can
share a host: with TorchServe's defaults, they collide on a socket name and a pid file in /tmp.

    config.properties
    models/embed-1/      a no-archive model for each endpoint and version
    bundles/1/           a copy of the bundle (serve.launcher.bundles)
    activity/            which batches are under way (serve.torchserve.activity)
    metrics/             what the workers count (serve.metrics)
    tmp/                 TorchServe's temporary files
"""

import json
import shutil
from pathlib import Path

import yaml

from serve.bundle.engine.host import usable_cores
from serve.bundle.manifest import Bundle
from serve.endpoints import ENDPOINTS
from serve.errors import LaunchError
from serve.launcher.bundles import Served, copy_bundle, describe
from serve.launcher.settings import BATCH_SIZE, Settings

# TorchServe starts on this version, and so starts its workers. Those of later versions are started
# once they are registered (serve.torchserve.management).
FIRST_VERSION = 1
ANSWER_S = 300  # most time for a batch: 24 requests of 4,096 images each are slow, but no fault


def add_models(home: Path, bundle: Bundle, version: int, settings: Settings) -> Served:
    """Copy a bundle into ``home`` and lay out a model of it for each endpoint; no worker starts.

    Args:
        home: the service's folder.
        bundle: to serve.
        version: TorchServe's number for the bundle; callers see the manifest's version.
        settings: of the service.

    Raises:
        ServeError: as copy_bundle; or the models can't be written.
    """
    copied = copy_bundle(home, bundle, version)
    try:
        for endpoint in ENDPOINTS:
            write_model(home, endpoint, copied, version, settings)
    except OSError as error:
        raise LaunchError(f"can't write to {home}: {error.strerror}") from error
    return describe(copied, version, settings.precision)


def remove_models(home: Path, version: int) -> None:
    """Undo ``add_models``, except for its copy of the bundle; a missing version is no fault."""
    for endpoint in ENDPOINTS:
        shutil.rmtree(model_folder(home, endpoint, version), ignore_errors=True)


def activity_folder(home: Path) -> Path:
    """Where the workers write which batches they are in."""
    return home / "activity"


def metrics_folder(home: Path) -> Path:
    """Where the workers write their counts."""
    return home / "metrics"


def model_folder(home: Path, endpoint: str, version: int) -> Path:
    """Where one version of an endpoint lies in the model store."""
    return home / "models" / f"{endpoint}-{version}"


def write_model(
    home: Path, endpoint: str, bundle: Bundle, version: int, settings: Settings
) -> None:
    """Lay out one no-archive model: a manifest that names the handler, and its configuration."""
    manifest = {
        "runtime": "python",
        "archiverVersion": "0.12.0",
        "createdOn": "",  # TorchServe warns where it is missing
        "model": {
            "modelName": endpoint,
            "modelVersion": str(version),
            "handler": "serve.torchserve.handler",
            "configFile": "model-config.yaml",
        },
    }
    config = {
        "responseTimeout": ANSWER_S,
        "batchSize": settings.batch_size or BATCH_SIZE,
        "maxBatchDelay": settings.batch_delay_ms,
        "handler": {
            "endpoint": endpoint,
            "bundle": str(bundle.folder.resolve()),
            "runtime": settings.runtime,
            "device": settings.device,
            "precision": settings.precision,
            "threads": max(1, usable_cores() // settings.worker_count),
            "canary_token": settings.canary_token,
            "log_format": settings.log_format,
            "activity": str(activity_folder(home).resolve()),
        },
    }
    if version == FIRST_VERSION:
        config |= {"minWorkers": settings.worker_count, "maxWorkers": settings.worker_count}
    folder = model_folder(home, endpoint, version)
    (folder / "MAR-INF").mkdir(parents=True)
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (folder / "model-config.yaml").write_text(yaml.safe_dump(config))
