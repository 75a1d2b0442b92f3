"""The ONNX file that TensorRT is given: every cell interpolated, every tensor's type written into the graph.

TensorRT 11 takes its precisions from the graph alone, and 10 does when asked to; so the graph is converted here: fp16
up to the last convolution, fp32 after it, where cosines are compared and probabilities summed.  It is made where torch
and onnx are, and needs neither where it is used.
"""

from pathlib import Path

import numpy as np

from ..utils.atomic_write import atomic_write
from .gpu import EngineError

# Of the file; counted up when what is written below, or what the network computes of the same weights, changes.
FORMAT = 2
# Sums over many numbers and powers of them leave fp16's range or its three digits; a Cast says its type itself.
FULL = {'Softmax', 'LayerNormalization', 'ReduceMean', 'ReduceSum', 'ReduceL2', 'Pow', 'Exp', 'Reciprocal', 'Sqrt',
        'Cast', 'ConstantOfShape', 'Range'}
FLOAT_ALWAYS = {'Resize': (1, 2)}   # inputs that ONNX wants in fp32 whatever the data is


def network_name(weights, precision):
    """File name of the network of `weights`; it names their content, so that a wrong file is never taken."""
    return f'{weights.path.stem}-{weights.sha256[:12]}-{precision}-{FORMAT}.onnx'


def find_network(weights, precision, folder):
    """Path of the network beside the weights or in `folder`, or None."""
    name = network_name(weights, precision)
    return next((path for path in (weights.path.parent / name, Path(folder) / name) if path.is_file()), None)


def make_network(weights, precision, folder):
    """Write the network of `weights` to `folder`, atomically; needs torch and onnx.  Returns its path.

    precision: fp32 or fp16.  Raises EngineError where torch or onnx is not installed.
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
        model = bytes_at_the_border(onnx.load(partial))
        onnx.save(half_precision(model) if precision == 'fp16' else model, partial)
    return path


def bytes_at_the_border(model):
    """The graph with uint8 in its inputs and outputs alone, as TensorRT wants it: cast at once, and at the very end."""
    from onnx import TensorProto, helper
    graph = model.graph
    byte_inputs = [v.name for v in graph.input if v.type.tensor_type.elem_type == TensorProto.UINT8]
    byte_outputs = [v.name for v in graph.output if v.type.tensor_type.elem_type == TensorProto.UINT8]
    for node in graph.node:
        _rename(node.input, byte_inputs)
        _rename(node.output, byte_outputs)
        if node.op_type == 'Cast' and node.attribute[0].i == TensorProto.UINT8:
            node.attribute[0].i = TensorProto.FLOAT
    casts = [helper.make_node('Cast', [name], [f'{name}_float'], f'{name}_from_bytes', to=TensorProto.FLOAT)
             for name in byte_inputs]
    for position, cast in enumerate(casts):
        graph.node.insert(position, cast)
    graph.node.extend(helper.make_node('Cast', [f'{name}_float'], [name], f'{name}_to_bytes', to=TensorProto.UINT8)
                      for name in byte_outputs)
    del graph.value_info[:]
    return model


def _rename(names, renamed):
    for position, name in enumerate(names):
        if name in renamed:
            names[position] = f'{name}_float'


def half_precision(model):
    """The fp32 graph with fp16 up to its last convolution; inputs and outputs keep their types."""
    import onnx
    graph = model.graph
    _constants_to_initializers(graph)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    floats = {v.name for v in (*inferred.value_info, *graph.input, *graph.output)
              if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    halves = _nodes_before_convolutions(graph, floats)
    _retype(graph, floats, weights, halves)
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(kept)
    onnx.checker.check_model(model, full_check=True)
    return model


def _constants_to_initializers(graph):
    """Float Constant nodes as initializers, so that there is one kind of constant to convert."""
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


def _nodes_before_convolutions(graph, floats):
    """Names of the first outputs of all nodes that a convolution hears, through floats, and of the convolutions."""
    producers = {name: node for node in graph.node for name in node.output}
    found, waiting = set(), [node for node in graph.node if node.op_type == 'Conv']
    while waiting:
        node = waiting.pop()
        if node.output[0] in found:
            continue
        found.add(node.output[0])
        waiting += [producers[name] for name in _data(node) if name in floats and name in producers]
    return {name for name in found if producers[name].op_type not in FULL}


def _data(node):
    return [name for i, name in enumerate(node.input) if i not in FLOAT_ALWAYS.get(node.op_type, ())]


def _retype(graph, floats, weights, halves):
    """Give each float input the type its node computes in: constants are converted, other tensors cast."""
    from onnx import TensorProto, helper, numpy_helper
    names = {TensorProto.FLOAT: 'fp32', TensorProto.FLOAT16: 'fp16'}
    types, converted, nodes = {}, {}, []
    for node in graph.node:
        half = node.output[0] in halves
        for i, name in enumerate(node.input):
            if name not in floats and name not in weights:
                continue
            wanted = TensorProto.FLOAT16 if half and name in _data(node) else TensorProto.FLOAT
            if types.get(name, TensorProto.FLOAT) == wanted:
                continue
            if (name, wanted) not in converted:
                converted[name, wanted] = f'{name}_{names[wanted]}'
                if name in weights:
                    array = numpy_helper.to_array(weights[name]).astype(np.float16)
                    if not np.isfinite(array).all():
                        raise EngineError(f'{name} of the network passes the range of fp16; use precision fp32')
                    graph.initializer.append(numpy_helper.from_array(array, converted[name, wanted]))
                else:
                    nodes.append(helper.make_node('Cast', [name], [converted[name, wanted]],
                                                  f'{name}_to_{names[wanted]}', to=wanted))
            node.input[i] = converted[name, wanted]
        for name in node.output:
            types[name] = TensorProto.FLOAT16 if half and name in floats else types.get(name, TensorProto.FLOAT)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
