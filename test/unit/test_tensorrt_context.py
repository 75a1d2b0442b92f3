"""The inference at one shape with TensorRT, with CUDA and TensorRT replaced by fakes in host memory."""

import ctypes

import numpy as np
import pytest

from lgseg_ros.engines.errors import EngineError
from lgseg_ros.engines.preprocessing import Frame
from lgseg_ros.engines.tensorrt_context import TensorRTContext, TensorRTShape
from lgseg_ros.model.graph_interface import (
    CLASS_IDS_INPUT,
    CONFIDENCE_OUTPUT,
    CONFIDENCE_THRESHOLD_INPUT,
    FRAMES_INPUT,
    IDS_OUTPUT,
    TEXT_EMBEDDINGS_INPUT,
)
from lgseg_ros.vocabulary.vocabulary import Vocabulary


class FakeCuda:
    """The functions of `Cuda` that a `TensorRTContext` calls, on host memory; capture fails where it is told to."""

    def __init__(self, can_capture):
        self.can_capture, self.memory, self.replays = can_capture, {}, 0

    def Malloc(self, size):  # noqa: N802 (CUDA's names)
        memory = (ctypes.c_uint8 * max(size, 1))()
        self.memory[ctypes.addressof(memory)] = memory
        return ctypes.addressof(memory)

    MallocHost = Malloc

    def Free(self, address):  # noqa: N802
        del self.memory[address]

    FreeHost = Free

    def copy(self, target, source, size, kind, stream):
        ctypes.memmove(target, source, size)

    def StreamSynchronize(self, stream):  # noqa: N802
        pass

    def capture(self, stream, enqueue):
        if not self.can_capture:
            raise EngineError('this layer cannot be captured')
        return enqueue

    def GraphLaunch(self, graph, stream):  # noqa: N802
        self.replays += 1
        graph()

    def GraphExecDestroy(self, graph):  # noqa: N802
        pass


class FakeExecutionContext:
    """Gives every pixel the last phrase's class, and confidence 255 x threshold; it is its own engine."""

    def __init__(self):
        self.shapes, self.addresses = {}, {}

    def get_tensor_shape(self, name):
        return -1, 4

    def create_execution_context(self):
        return self

    def set_input_shape(self, name, shape):
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

    def array(self, name, kind, shape):
        memory = (ctypes.c_uint8 * int(np.prod(shape) * np.dtype(kind).itemsize)).from_address(self.addresses[name])
        return np.frombuffer(memory, kind).reshape(shape)

    def execute_async_v3(self, stream):
        class_ids = self.array(CLASS_IDS_INPUT, np.int64, self.shapes[CLASS_IDS_INPUT])
        embeddings = self.array(TEXT_EMBEDDINGS_INPUT, np.float32, self.shapes[TEXT_EMBEDDINGS_INPUT])
        assert np.array_equal(embeddings, np.full((len(class_ids), 4), len(class_ids)))
        self.array(IDS_OUTPUT, np.uint8, self.shapes[FRAMES_INPUT][:3])[...] = class_ids[-1]
        threshold = self.array(CONFIDENCE_THRESHOLD_INPUT, np.float32, ())
        self.array(CONFIDENCE_OUTPUT, np.uint8, self.shapes[FRAMES_INPUT][:3])[...] = 255 * threshold
        return True


@pytest.mark.parametrize('can_capture', [True, False])
def test_a_context_uploads_frames_and_vocabulary(can_capture, caplog):
    """Without a GPU: which value goes to which input of the engine, and that the buffers are given back."""
    def vocabulary(class_ids, threshold):
        embeddings = np.full((len(class_ids), 4), len(class_ids), np.float32)
        return Vocabulary(1, (), tuple(class_ids), embeddings, np.array(class_ids), threshold, '')
    cuda, engine = FakeCuda(can_capture), FakeExecutionContext()
    context = TensorRTContext(cuda, engine, 0, TensorRTShape(2, (64, 72), 2))
    frames = [Frame(np.full((128, 144, 3), value, np.uint8), 'bgr') for value in (10, 20)]
    first, second = vocabulary([3, 7], 0.2), vocabulary([7, 9], 0.6)
    for current, class_id, confidence in ((first, 7, 51), (first, 7, 51), (second, 9, 153)):
        ids, confidences = context.run(frames, current)
        assert ids.shape == confidences.shape == (2, 64, 72)
        assert (ids == class_id).all() and (confidences == confidence).all()
    uploaded = engine.array(FRAMES_INPUT, np.uint8, (2, 64, 72, 3))
    assert (uploaded[0] == 10).all() and (uploaded[1] == 20).all()
    assert cuda.replays == (2 if can_capture else 0)
    assert caplog.text.count('runs without a CUDA graph') == (0 if can_capture else 1)
    context.close()
    assert not cuda.memory
