"""Measure this project beside its peers, in the same run."""

import serve.bundle  # noqa: F401 - forbids onnxruntime to call its maker, before it is imported here
