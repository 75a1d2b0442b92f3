"""The file that TensorRT parses, checked without TensorRT: its types, and its masks in ONNX Runtime."""

import sys
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from lgseg_ros.engines.errors import EngineError
from lgseg_ros.engines.preprocessing import Frame, to_network
from lgseg_ros.engines.tensorrt_network import find_network, make_network, network_name
from lgseg_ros.model.graph_interface import (
    CLASS_IDS_INPUT,
    CONFIDENCE_THRESHOLD_INPUT,
    FRAMES_INPUT,
    TEXT_EMBEDDINGS_INPUT,
)
from lgseg_ros.vocabulary.vocabulary import VocabularyState


@pytest.fixture(scope='module')
def network(weights, tmp_path_factory):
    """Path of the fp16 network of the shipped weights."""
    return make_network(weights, 'fp16', tmp_path_factory.mktemp('networks'))


@pytest.fixture(scope='module')
def graph(network):
    return onnx.shape_inference.infer_shapes(onnx.load(network), strict_mode=True).graph


@pytest.fixture(scope='module')
def types(graph):
    """{tensor: element type} of everything in the graph; nothing may be left open."""
    known = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    known |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert all(name in known for node in graph.node for name in (*node.input, *node.output) if name)
    return known


def test_uint8_is_cast_at_the_boundary_alone(graph, types):
    """TensorRT knows uint8 as a network's input or output next to a cast, and nowhere else."""
    assert sorted(name for name, kind in types.items() if kind == TensorProto.UINT8) == ['confidence', 'frames', 'ids']
    for node in graph.node:
        if {'frames', 'ids', 'confidence'} & {*node.input, *node.output}:
            assert node.op_type == 'Cast'
            assert {types[name] for name in (*node.input, *node.output)} == {TensorProto.UINT8, TensorProto.FLOAT}


def test_convolutions_are_fp16_and_decisions_fp32(graph, types):
    computed = Counter((node.op_type, types[node.output[0]]) for node in graph.node)
    half, full = TensorProto.FLOAT16, TensorProto.FLOAT
    assert computed['Conv', half] > 50 and not computed['Conv', full]
    for op in ('Softmax', 'LayerNormalization', 'ReduceL2', 'Exp', 'ReduceMax'):
        assert computed[op, full] and not computed[op, half], op
    for node in graph.node:   # strongly typed: no operator may mix
        kinds = {types[name] for name in node.input if name} & {half, full}
        assert len(kinds) < 2 or node.op_type == 'Resize', node.name


def test_no_shape_depends_on_the_image(graph):
    assert not {'NonZero', 'Unique', 'Compress', 'NonMaxSuppression', 'If', 'Loop'} & {n.op_type for n in graph.node}


def test_masks_are_those_of_fp32(network, engine, weights, street):
    session = onnxruntime.InferenceSession(str(network), providers=['CPUExecutionProvider'])
    for vocabulary in (VocabularyState(weights.text_embeddings).replace([], 'camvid'),
                       VocabularyState(weights.text_embeddings).replace(weights.text_embeddings.names[:40])):
        frame = Frame(street[0], 'bgr')
        wanted, = engine.run([frame], vocabulary)
        batch = np.stack([to_network(frame, (360, 480))] * 2)
        ids, confidence = session.run(None, {
            FRAMES_INPUT: batch, TEXT_EMBEDDINGS_INPUT: vocabulary.text_embeddings,
            CLASS_IDS_INPUT: vocabulary.class_ids, CONFIDENCE_THRESHOLD_INPUT: np.array(0, np.float32)})
        assert np.array_equal(ids[0], ids[1]) and ids.dtype == confidence.dtype == np.uint8
        assert np.mean(ids[0] == wanted.ids) > 0.985
        assert np.abs(confidence[0].astype(int) - wanted.confidence).mean() < 3


def test_found_by_the_content_of_the_weights(network, weights, tmp_path):
    from dataclasses import replace
    assert find_network(weights, 'fp16', network.parent) == network
    assert find_network(weights, 'fp32', network.parent) is None
    assert find_network(replace(weights, sha256='0' * 64), 'fp16', network.parent) is None
    assert network.name == network_name(weights, 'fp16') and list(network.parent.iterdir()) == [network]
    beside = replace(weights, path=tmp_path / weights.path.name)
    (tmp_path / network.name).write_bytes(network.read_bytes())
    assert find_network(beside, 'fp16', network.parent) == tmp_path / network.name


def test_without_onnx_it_says_where_to_make_it(weights, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(EngineError, match='lgseg build-engine --network-only'):
        make_network(weights, 'fp16', tmp_path)
