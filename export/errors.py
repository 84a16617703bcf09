"""What can go wrong in an export."""


class ExportError(Exception):
    """The bundle can't be written; ``python -m export`` prints the message and exits 1."""


class ParityError(ExportError):
    """An exported form disagrees with eager PyTorch; the message says where and by how much."""
