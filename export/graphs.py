"""The model as files that run without this project: two ONNX graphs and one TorchScript."""

import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

from train.config import TrainConfig
from train.model import Autoencoder

OPSET = 18
TRACE_BATCH = 2  # a batch of 1 would be baked into the graph as a constant


def write_onnx(model: Autoencoder, config: TrainConfig, folder: Path) -> None:
    """Write encoder.onnx and decoder.onnx: any batch size, weights inside the file.

    The encoder maps ``images`` uint8[N, C, H, W] to ``embeddings`` float32[N, D]; the decoder maps
    ``embeddings`` to ``images`` float32[N, C, H, W] in [0, 1].
    """
    shape = (TRACE_BATCH, config.input_dim, config.image_size, config.image_size)
    images = torch.zeros(shape, dtype=torch.uint8)
    embeddings = torch.zeros(TRACE_BATCH, config.output_dim)
    write_graph(model.encoder, images, "images", "embeddings", folder / "encoder.onnx")
    write_graph(model.decoder, embeddings, "embeddings", "images", folder / "decoder.onnx")


def write_graph(
    module: nn.Module, sample: torch.Tensor, input_name: str, output_name: str, path: Path
) -> None:
    """Trace one half of the model into one checked ONNX file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecated internals
        program = torch.onnx.export(
            module,
            (sample,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[input_name],
            output_names=[output_name],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            external_data=False,
            verbose=False,
        )
    graph = program.model_proto
    onnx.checker.check_model(graph, full_check=True)
    path.write_bytes(graph.SerializeToString())


def write_torchscript(model: Autoencoder, path: Path) -> None:
    """Write autoencoder.ts, frozen, with the methods ``encode``, ``decode`` and ``forward``."""
    with warnings.catch_warnings():
        # torch.jit is deprecated, not gone; TorchScript is what the bundle promises.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        script = torch.jit.freeze(torch.jit.script(model), preserved_attrs=["encode", "decode"])
        script.save(str(path))
