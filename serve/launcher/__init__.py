"""What ``python -m serve`` is made of: Java, TorchServe's process, and readiness that is true."""
