"""Fixtures for all tests, and what is left out where a package is missing."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / 'shared'

# Test modules import helpers by plain name. Not pytest's option `pythonpath`: Humble's pytest 6 does not support it.
sys.path[:0] = [str(ROOT / 'test' / folder) for folder in ('helpers', 'unit')]

from tiny_clip import tiny_clip_folder, tiny_clip_weights  # noqa: E402, F401 (fixtures)

# What cannot be imported without a package, by package; the rest of test/unit runs without ROS and PyTorch.
NEEDED_BY = {
    'rclpy': ['node', 'faults', 'unit/test_image_conversions.py'],
    'torch': ['training', 'cli/test_cli_train.py', 'unit/test_export.py', 'unit/test_model.py',
              'unit/test_postprocessing.py', 'unit/test_self_test.py', 'unit/test_tensorrt_network.py',
              'unit/test_torch_engine.py'],
    'onnx': ['unit/test_compile_cache.py', 'unit/test_int8.py', 'unit/test_self_test.py'],
}
MISSING = [package for package in NEEDED_BY if importlib.util.find_spec(package) is None]
collect_ignore = [path for package in MISSING for path in NEEDED_BY[package]]

# Before any rclpy.init: the test images are larger than Fast DDS's default segment and would sometimes be lost.
for variable in ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'):
    os.environ.setdefault(variable, str(ROOT / 'config' / 'fastdds.xml'))


def pytest_report_header():
    """The tests that are left out."""
    return [f'{package} is not installed; left out: {", ".join(NEEDED_BY[package])}' for package in MISSING]


@pytest.fixture(autouse=True, scope='session')
def unchanged_allocator():
    """Training must not configure the allocator of this process to keep memory: other tests measure what is freed."""
    if 'torch' in MISSING:
        yield
        return
    from lgseg_ros.training import distributed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, 'keep_freed_memory', lambda: False)
        yield


@pytest.fixture(scope='module')
def one_torch_thread():
    """PyTorch on one thread, which is faster for networks of this size."""
    import torch
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope='session')
def shared():
    """The folder ../shared with data; the test is skipped if it does not exist."""
    if not SHARED.is_dir():
        pytest.skip('../shared (data sets, text embeddings, video) does not exist')
    return SHARED


@pytest.fixture(scope='session')
def clip_text_embeddings(shared):
    """350 CLIP text embeddings."""
    from lgseg_ros.vocabulary.text_embeddings import load_text_embeddings
    return load_text_embeddings(shared / 'text' / 'clip_vit_b16_bank.npz')


@pytest.fixture(scope='session')
def weights():
    """The shipped weights."""
    from lgseg_ros.model.weights import load_weights
    return load_weights()


@pytest.fixture(scope='session')
def engine(weights):
    """ONNX Runtime with the shipped weights in fp32."""
    from lgseg_ros.engines.onnxruntime_engine import OnnxRuntimeEngine
    return OnnxRuntimeEngine(weights, num_threads=1, precision='fp32')


@pytest.fixture(scope='session')
def street():
    """A labelled street image: BGR uint8 [360, 480, 3] and CamVid ids [360, 480]."""
    from lgseg_ros.demo.street import StreetCamera
    return StreetCamera(width=480, height=360, seed=3).render(40)
