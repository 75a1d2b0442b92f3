"""Faults for tests of the self-test, injected into copies of the shipped weights, ONNX files and compile caches."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from lgseg_ros.engines.openvino_engine import OpenVinoEngine
from lgseg_ros.engines.preprocessing import Frame, Mask
from lgseg_ros.model.weights import Weights, load_weights
from lgseg_ros.vocabulary.vocabulary import Vocabulary

SUFFIXES = ('.safetensors', '.json', '.onnx', '.int8.onnx', '.selftest.safetensors')


def copy_weights(weights: Weights, folder: Path) -> Weights:
    """Copy the shipped files to `folder` as `w.*`, for a test that damages them."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in SUFFIXES:
        shutil.copy(weights.path.with_suffix(suffix), folder / f'w{suffix}')
    return load_weights(folder / 'w.safetensors')


def swap_outputs(path: Path) -> None:
    """Give the ids the name of the confidence in an ONNX file, and the other way round."""
    model = onnx.load(path)
    new = {'ids': 'confidence', 'confidence': 'ids'}
    for node in model.graph.node:
        node.output[:] = [new.get(name, name) for name in node.output]
        node.input[:] = [new.get(name, name) for name in node.input]
    onnx.save(model, path)


def reverse_channels(path: Path) -> None:
    """Reverse the channels of the first convolution of an ONNX file: it loads and runs, but is another network."""
    model = onnx.load(path)
    first = next(node for node in model.graph.node if node.op_type == 'Conv')
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == first.input[1])
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor)[::-1].copy(), tensor.name))
    onnx.save(model, path)


def blobs(cache: Path, start: str) -> list[Path]:
    """The compiled graphs of OpenVINO in a cache whose folders begin with `start`, e.g. 'fp32-360x480'."""
    return sorted((cache / 'openvino').glob(f'{start}-*/*.blob'))


def corrupt(path: Path) -> None:
    """Overwrite a tenth of a file, in the section of the weights, without changing its length."""
    data = bytearray(path.read_bytes())
    first, count = int(len(data) * 0.3), len(data) // 10
    data[first:first + count] = np.random.default_rng(0).bytes(count)
    path.write_bytes(bytes(data))


def without_self_test(weights: Weights, folder: Path) -> Weights:
    """The same weights copied to `folder` without the self-test, so that engines of faulty files can be created."""
    for suffix in SUFFIXES[:-1]:
        shutil.copy(weights.path.with_suffix(suffix), folder / f'no_self_test{suffix}')
    return replace(weights, path=folder / 'no_self_test.safetensors')


def segment(engine: object, image: 'np.ndarray', vocabulary: Vocabulary) -> Mask:
    """The mask of a BGR image."""
    return engine.run([Frame(image, 'bgr')], vocabulary)[0]


def openvino_fp32(weights: Weights) -> OpenVinoEngine:
    """OpenVINO in fp32 with one thread."""
    return OpenVinoEngine(weights, 1, precision='fp32')
