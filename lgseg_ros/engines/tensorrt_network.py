"""The ONNX file that TensorRT reads: every cell is interpolated, and the graph holds the type of every tensor.

TensorRT 11 takes its precisions from the graph alone, and 10 does when asked to. So the graph is converted here: fp16
up to the last convolution, fp32 after it, where cosines are compared and probabilities summed. To make the file needs
torch and onnx; to use it needs neither.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableSequence, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..model.weights import Weights
from ..utils.atomic_write import atomic_write
from .errors import EngineError

if TYPE_CHECKING:
    import onnx

NETWORK_FORMAT = 2
"""Format of the file. Increment it if what is written, or what the network computes of the same weights, changes."""

FP32_OPS = {'Softmax', 'LayerNormalization', 'ReduceMean', 'ReduceSum', 'ReduceL2', 'Pow', 'Exp', 'Reciprocal', 'Sqrt',
            'Cast', 'ConstantOfShape', 'Range'}
"""Operators that stay in fp32: sums over many numbers, and powers, leave the range or the three digits of fp16. A Cast
holds its type itself."""

FP32_INPUTS = {'Resize': (1, 2)}
"""Inputs, by operator, that ONNX requires in fp32 whatever the type of the data."""


def network_name(weights: Weights, precision: str) -> str:
    """Return the name of the network file. It holds the digest of the weights, so that no other file is taken."""
    return f'{weights.path.stem}-{weights.sha256[:12]}-{precision}-{NETWORK_FORMAT}.onnx'


def find_network(weights: Weights, precision: str, folder: str | Path) -> Path | None:
    """Return the path of the network file beside the weights or in `folder`, or None."""
    name = network_name(weights, precision)
    return next((path for path in (weights.path.parent / name, Path(folder) / name) if path.is_file()), None)


def make_network(weights: Weights, precision: str, folder: str | Path) -> Path:
    """Write the network file atomically; needs torch and onnx.

    Args:
        weights: from `load_weights`.
        precision: 'fp32' or 'fp16'.
        folder: where to write; it is created where it is missing.

    Returns:
        Path of the file.

    Raises:
        EngineError: torch or onnx is not installed, or a weight does not fit fp16.
        OSError: the file cannot be written.
    """
    try:
        import onnx

        from ..model.onnx_export import export_onnx
        from ..model.weights_file import load_network
    except ImportError as error:
        raise EngineError(f'{network_name(weights, precision)} is not here, and cannot be made here ({error}); make '
                          'it where training works: lgseg build-engine --network-only, and copy it beside the '
                          'weights') from error
    path = Path(folder) / network_name(weights, precision)
    with atomic_write(path) as partial:
        export_onnx(load_network(weights), partial, every_cell=True)
        model = cast_uint8_at_boundary(onnx.load(partial))
        onnx.save(convert_to_fp16(model) if precision == 'fp16' else model, partial)
    return path


def cast_uint8_at_boundary(model: onnx.ModelProto) -> onnx.ModelProto:
    """Limit uint8 to the graph's inputs and outputs, as TensorRT requires; each has a Cast beside it.

    Args:
        model: the exported fp32 graph, which is changed in place.

    Returns:
        The same model.
    """
    from onnx import TensorProto, helper
    graph = model.graph
    uint8_inputs = [v.name for v in graph.input if v.type.tensor_type.elem_type == TensorProto.UINT8]
    uint8_outputs = [v.name for v in graph.output if v.type.tensor_type.elem_type == TensorProto.UINT8]
    for node in graph.node:
        _rename_floats(node.input, uint8_inputs)
        _rename_floats(node.output, uint8_outputs)
        if node.op_type == 'Cast' and node.attribute[0].i == TensorProto.UINT8:
            node.attribute[0].i = TensorProto.FLOAT
    casts = [helper.make_node('Cast', [name], [f'{name}_float'], f'{name}_from_bytes', to=TensorProto.FLOAT)
             for name in uint8_inputs]
    for position, cast in enumerate(casts):
        graph.node.insert(position, cast)
    graph.node.extend(helper.make_node('Cast', [f'{name}_float'], [name], f'{name}_to_bytes', to=TensorProto.UINT8)
                      for name in uint8_outputs)
    del graph.value_info[:]
    return model


def _rename_floats(names: MutableSequence[str], uint8_tensors: Sequence[str]) -> None:
    """Replace, in a node's inputs or outputs, the uint8 tensors by the float ones on the other side of the Cast."""
    for position, name in enumerate(names):
        if name in uint8_tensors:
            names[position] = f'{name}_float'


def convert_to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a graph to fp16 up to its last convolution. Inputs and outputs keep their types.

    Args:
        model: an fp32 graph, which is changed in place.

    Returns:
        The same model.

    Raises:
        EngineError: a weight does not fit fp16.
    """
    import onnx
    graph = model.graph
    _constants_to_initializers(graph)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    floats = {v.name for v in (*inferred.value_info, *graph.input, *graph.output)
              if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    constants = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    _retype(graph, floats, constants, _fp16_nodes(graph, floats))
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(kept)
    onnx.checker.check_model(model, full_check=True)
    return model


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Turn float Constant nodes into initializers, so that there is one kind of constant to convert."""
    from onnx import TensorProto
    nodes = []
    for node in graph.node:
        tensor = node.attribute[0].t if node.op_type == 'Constant' else None
        if tensor is not None and tensor.data_type == TensorProto.FLOAT:
            graph.initializer.append(tensor)
            graph.initializer[-1].name = node.output[0]
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _fp16_nodes(graph: onnx.GraphProto, floats: set[str]) -> set[str]:
    """Return the nodes to compute in fp16, each by the name of its first output.

    They are the convolutions, and all nodes that a convolution depends on through float tensors, without `FP32_OPS`.
    """
    producers = {name: node for node in graph.node for name in node.output}
    visited: set[str] = set()
    waiting = [node for node in graph.node if node.op_type == 'Conv']
    while waiting:
        node = waiting.pop()
        if node.output[0] in visited:
            continue
        visited.add(node.output[0])
        waiting += [producers[name] for name in _data_inputs(node) if name in floats and name in producers]
    return {name for name in visited if producers[name].op_type not in FP32_OPS}


def _data_inputs(node: onnx.NodeProto) -> list[str]:
    return [name for i, name in enumerate(node.input) if i not in FP32_INPUTS.get(node.op_type, ())]


def _retype(graph: onnx.GraphProto, floats: set[str], constants: Mapping[str, onnx.TensorProto],
            fp16_nodes: set[str]) -> None:
    """Give each float input the type that its node computes in: constants are converted, other tensors cast."""
    from onnx import TensorProto, helper
    suffixes = {TensorProto.FLOAT: 'fp32', TensorProto.FLOAT16: 'fp16'}
    types: dict[str, int] = {}
    converted: dict[tuple[str, int], str] = {}
    nodes = []
    for node in graph.node:
        is_fp16 = node.output[0] in fp16_nodes
        for i, name in enumerate(node.input):
            if name not in floats and name not in constants:
                continue
            wanted = TensorProto.FLOAT16 if is_fp16 and name in _data_inputs(node) else TensorProto.FLOAT
            if types.get(name, TensorProto.FLOAT) == wanted:
                continue
            if (name, wanted) not in converted:
                converted[name, wanted] = new_name = f'{name}_{suffixes[wanted]}'
                if name in constants:
                    graph.initializer.append(_fp16_constant(constants[name], new_name))
                else:
                    nodes.append(helper.make_node('Cast', [name], [new_name], f'{name}_to_{suffixes[wanted]}',
                                                  to=wanted))
            node.input[i] = converted[name, wanted]
        for name in node.output:
            types[name] = TensorProto.FLOAT16 if is_fp16 and name in floats else types.get(name, TensorProto.FLOAT)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _fp16_constant(constant: onnx.TensorProto, name: str) -> onnx.TensorProto:
    from onnx import numpy_helper
    array = numpy_helper.to_array(constant).astype(np.float16)
    if not np.isfinite(array).all():
        raise EngineError(f'{constant.name} of the network exceeds the range of fp16; use precision fp32')
    return numpy_helper.from_array(array, name)
