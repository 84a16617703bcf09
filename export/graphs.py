"""The model as files that run without this project: four ONNX graphs and a TorchScript file."""

import copy
import warnings
from pathlib import Path
from typing import cast

import onnx
import onnx_ir
import torch
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import nn

from export.rewrite import faster
from train.model import Autoencoder

OPSET = 18
TRACE_BATCH = 2  # a batch of 1 would be baked into the graph as a constant

# The documentation inside each ONNX file, for readers who have nothing but the file.
ENCODER_NOTE = """\
Encoder of an image autoencoder. Input images: uint8[batch, {shape}], channels first, 0 is
background and 255 is ink; scaling to [0, 1] happens inside. Output embeddings:
float32[batch, {width}]."""
DECODER_NOTE = """\
Decoder of an image autoencoder. Input embeddings: float32[batch, {width}], as the encoder gives
them. Output images: float32[batch, {shape}] in [0, 1], channels first, 0 is background."""


def write_onnx(model: Autoencoder, folder: Path, *, rewrite: bool = True) -> None:
    """Write encoder and decoder as ONNX files, each in single and in half precision.

    The files take any batch size and hold their weights. The encoder maps ``images``
    uint8[N, C, H, W] to ``embeddings`` float32[N, D]; the decoder maps ``embeddings`` to ``images``
    float32[N, C, H, W] in [0, 1]. The ``.fp16`` files have the same inputs and outputs and compute
    in half precision in between.

    Args:
        model: on the CPU.
        folder: the folder to write the four files into.
        rewrite: whether to rewrite the decoder for speed (export.rewrite). bench/engines.py
            measures what the rewriting is worth.

    Raises:
        ExportError: the decoder has a layer that can't be rewritten.
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
    """Trace the encoder or the decoder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter uses parts of torch that torch deprecates
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
    # With dynamo=True, torch.onnx.export always returns a program; its type hint says "or None".
    graph = cast(torch.onnx.ONNXProgram, program).model_proto
    graph.doc_string = note
    return graph


def to_half(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in half precision; its inputs, its outputs and the sigmoid stay in float32."""
    half = convert_float_to_float16(
        copy.deepcopy(graph), keep_io_types=True, op_block_list=["Sigmoid"]
    )
    half.doc_string += " In between it computes in half precision."
    model = onnx_ir.from_proto(half)
    model.graph.sort()  # the converter appends the casts of inputs at the end
    sorted_graph: onnx.ModelProto = onnx_ir.to_proto(model)
    return sorted_graph


def write_graph(graph: onnx.ModelProto, path: Path) -> None:
    """Write a graph after onnx.checker has checked it and inferred its shapes."""
    onnx.checker.check_model(graph, full_check=True)
    path.write_bytes(graph.SerializeToString())


def write_torchscript(model: Autoencoder, path: Path) -> None:
    """Write autoencoder.ts, frozen, with the methods ``encode``, ``decode`` and ``forward``.

    Raises:
        ExportError: the decoder has a layer that can't be rewritten.
    """
    fast = copy.deepcopy(model)
    fast.register_module("decoder", faster(model.decoder))
    with warnings.catch_warnings():
        # torch deprecates torch.jit, but the bundle's format promises a TorchScript file.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        script = torch.jit.freeze(torch.jit.script(fast), preserved_attrs=["encode", "decode"])
        script.save(str(path))
