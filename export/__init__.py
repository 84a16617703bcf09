"""Checkpoint in, bundle out: the export stage (``python -m export --help``)."""

import serve.bundle  # noqa: F401  # before onnxruntime: it turns its telemetry off
