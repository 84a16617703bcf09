"""TorchServe's entry points, one class a file, as TorchServe demands."""
