"""Engines execute a bundle. A runtime is two functions that run a chunk.

protocol.py      what an engine is
opening.py       load a bundle into a runtime
checks.py        check arrays, the precision and the golden answers
chunks.py        the class: large inputs in pieces, so that memory stays bounded
host.py          cores and arithmetic of this host
onnx.py          onnxruntime on the CPU, OpenVINO or CUDA
cuda.py          the CUDA calls that onnxruntime's Python API lacks
torchscript.py   TorchScript on the CPU or CUDA
"""
