"""Bundle → one .mar for each endpoint, for any stock TorchServe with the same runtime installed.

An archive carries the bundle, the ``serve`` package and a model-config.yaml: the server needs
nothing else of this project but the two lines of SERVER_SETTINGS.
"""

import shutil
import tempfile
from pathlib import Path

from model_archiver.model_archiver_config import ModelArchiverConfig
from model_archiver.model_packaging import package_model
from model_archiver.model_packaging_utils import ModelExportUtils

import serve.bundle
from serve.bundle.limits import MAX_BODY_BYTES, MAX_REPLY_BYTES
from serve.bundle.manifest import Bundle

SERVE_PACKAGE = Path(serve.bundle.__file__).parents[1]
HANDLER = SERVE_PACKAGE / "torchserve" / "handler.py"

# Those of serve/endpoints.py, which this room may not import; tests/serve/test_endpoints.py holds
# the two together.
ENDPOINTS = ("embed", "reconstruct", "decode")

# What the config.properties of a stock TorchServe has to say. By default TorchServe's limits lie
# below the contract's: it kills a worker whose reply is over 6,553,500 bytes. The margins are those
# of serve/torchserve/process.py.
SERVER_SETTINGS = f"""\
max_request_size={MAX_BODY_BYTES + 65_536}
max_response_size={MAX_REPLY_BYTES + 65_536}
"""
# What ``python -m serve`` would configure at start-up, an archive has to bring along. A worker that
# takes longer than responseTimeout, in seconds, is killed.
MODEL_CONFIG = """\
minWorkers: 1
maxWorkers: 1
batchSize: 24
maxBatchDelay: 1
responseTimeout: 300
handler:
  endpoint: {endpoint}
  bundle: bundle
  runtime: onnxruntime
  device: auto
  precision: fp32
"""


def write_archives(bundle: Bundle, folder: Path) -> list[Path]:
    """Write ``embed.mar``, ``reconstruct.mar`` and ``decode.mar`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        content = Path(temporary) / "content"
        shutil.copytree(bundle.folder, content / "bundle")
        without_caches = shutil.ignore_patterns("__pycache__")
        shutil.copytree(SERVE_PACKAGE, content / "serve", ignore=without_caches)
        config_file = Path(temporary) / "model-config.yaml"
        for endpoint in ENDPOINTS:
            config_file.write_text(MODEL_CONFIG.format(endpoint=endpoint))
            config = ModelArchiverConfig(
                model_name=endpoint,
                handler=str(HANDLER),
                version=bundle.manifest.version,
                extra_files=str(content),
                config_file=str(config_file),
                export_path=str(folder),
                force=True,
            )
            package_model(config, ModelExportUtils.generate_manifest_json(config))
    return [folder / f"{endpoint}.mar" for endpoint in ENDPOINTS]
