"""The model as files that run without this project: ONNX graphs and one TorchScript."""

import copy
import warnings
from pathlib import Path

import onnx
import onnx_ir
import torch
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import nn

from export.rewrite import faster
from train.model import Autoencoder

OPSET = 18
TRACE_BATCH = 2  # a batch of 1 would be baked into the graph as a constant

# What someone who has only the file needs to know.
ENCODER_NOTE = """\
Encoder of an image autoencoder. Input images: uint8[batch, {shape}], channels first, 0 is
background and 255 is ink; scaling to [0, 1] happens inside. Output embeddings:
float32[batch, {width}]."""
DECODER_NOTE = """\
Decoder of an image autoencoder. Input embeddings: float32[batch, {width}], as the encoder gives
them. Output images: float32[batch, {shape}] in [0, 1], channels first, 0 is background."""


def write_onnx(model: Autoencoder, folder: Path, *, rewrite: bool = True) -> None:
    """Write both halves, in single and in half precision: any batch size, weights inside the file.

    The encoder maps ``images`` uint8[N, C, H, W] to ``embeddings`` float32[N, D]; the decoder maps
    ``embeddings`` to ``images`` float32[N, C, H, W] in [0, 1]. In the ``.fp16`` files only what
    lies between is of half precision.

    Args:
        model: on the CPU.
        folder: to write into.
        rewrite: the decoder, for speed (export.rewrite); bench/ measures what that is worth.
    """
    config = model.config
    shape = (config.input_dim, config.image_size, config.image_size)
    words = {"shape": ", ".join(map(str, shape)), "width": config.output_dim}
    images = torch.zeros(TRACE_BATCH, *shape, dtype=torch.uint8)
    embeddings = torch.zeros(TRACE_BATCH, config.output_dim)
    decoder = faster(model.decoder) if rewrite else model.decoder
    encode = to_onnx(model.encoder, images, "images", "embeddings", ENCODER_NOTE.format(**words))
    decode = to_onnx(decoder, embeddings, "embeddings", "images", DECODER_NOTE.format(**words))
    for name, graph in (("encoder", encode), ("decoder", decode)):
        write_graph(graph, folder / f"{name}.onnx")
        write_graph(to_half(graph), folder / f"{name}.fp16.onnx")


def to_onnx(
    module: nn.Module, sample: torch.Tensor, input_name: str, output_name: str, note: str
) -> onnx.ModelProto:
    """Trace one half of the model."""
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
    graph.doc_string = note
    return graph


def to_half(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in half precision, bar its inputs, its outputs and the sigmoid before them."""
    half = convert_float_to_float16(
        copy.deepcopy(graph), keep_io_types=True, op_block_list=["Sigmoid"]
    )
    half.doc_string += " In between it computes in half precision."
    model = onnx_ir.from_proto(half)
    model.graph.sort()  # the converter appends the casts of inputs at the end
    return onnx_ir.to_proto(model)


def write_graph(graph: onnx.ModelProto, path: Path) -> None:
    """Write a graph that has passed onnx.checker, every shape inferred."""
    onnx.checker.check_model(graph, full_check=True)
    path.write_bytes(graph.SerializeToString())


def write_torchscript(model: Autoencoder, path: Path) -> None:
    """Write autoencoder.ts, frozen, with the methods ``encode``, ``decode`` and ``forward``."""
    fast = copy.deepcopy(model)
    fast.decoder = faster(model.decoder)
    with warnings.catch_warnings():
        # torch.jit is deprecated, not gone; TorchScript is what the bundle promises.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        script = torch.jit.freeze(torch.jit.script(fast), preserved_attrs=["encode", "decode"])
        script.save(str(path))
