"""What of the TensorRT engine can be run without a GPU: refusals, shapes, and the command that builds."""

import dataclasses
import json
from pathlib import Path

import pytest

from lgseg_ros.cli.main import main
from lgseg_ros.engines import tensorrt_build, tensorrt_engine, tensorrt_prebuild
from lgseg_ros.engines.errors import EngineError
from lgseg_ros.engines.preprocessing import DEFAULT_PIXELS, SMALLEST, STEP, network_size
from lgseg_ros.engines.tensorrt_build import MAX_ASPECT_RATIO, EngineShapes, profile_shapes
from lgseg_ros.engines.tensorrt_engine import TensorRTEngine, build_command, clamp
from lgseg_ros.model.graph_interface import CLASS_IDS_INPUT, FRAMES_INPUT, TEXT_EMBEDDINGS_INPUT
from lgseg_ros.utils.hardware import has_gpu_device
from lgseg_ros.vocabulary.classes import MAX_PHRASES
from test_engine_cache import SAMPLE

NO_GPU = pytest.mark.skipif(TensorRTEngine.unavailable() is None, reason='TensorRT works here')


@pytest.mark.parametrize('pixels', [DEFAULT_PIXELS, 64 * 64, 1024 * 512])
@pytest.mark.parametrize('height, width', [(480, 640), (720, 1280), (1080, 1920), (1000, 1000), (100, 240), (20, 20)])
def test_one_engine_accepts_every_usual_image_size(weights, pixels, height, width):
    profile = profile_shapes(pixels, EngineShapes(), weights)
    min_size, opt_size, max_size = (shape[1:3] for shape in profile[FRAMES_INPUT])
    size = network_size(height, width, pixels)
    assert all(a <= b <= c for a, b, c in zip(min_size, size, max_size))
    assert opt_size == network_size(480, 640, pixels) and clamp(size, max_size) == size
    assert max_size[0] * max_size[1] < 2 * max(pixels, 64 * 64)   # memory is allocated for the largest
    assert all(side % STEP == 0 for side in (*min_size, *opt_size, *max_size))


def test_an_engine_for_an_unusual_image_size_accepts_it(weights):
    size = 1280, 720   # portrait
    largest = profile_shapes(DEFAULT_PIXELS, EngineShapes(size, 2), weights)[FRAMES_INPUT][2]
    assert clamp(network_size(*size), largest[1:3]) == network_size(*size) and largest[0] == 2
    usual = profile_shapes(DEFAULT_PIXELS, EngineShapes(), weights)[FRAMES_INPUT][2]
    squeezed = clamp(network_size(*size), usual[1:3])
    assert squeezed != network_size(*size) and min(squeezed) >= SMALLEST and max(squeezed) <= max(usual[1:3])
    assert MAX_ASPECT_RATIO > 16 / 9


def test_vocabularies_of_one_to_all_phrases(weights):
    profile = profile_shapes(DEFAULT_PIXELS, EngineShapes(), weights)
    dim = weights.text_embeddings.vectors.shape[1]
    min_shape, _, max_shape = profile[TEXT_EMBEDDINGS_INPUT]
    assert min_shape == (1, dim) and max_shape == (MAX_PHRASES, dim)
    assert profile[CLASS_IDS_INPUT][2] == (MAX_PHRASES,)


@NO_GPU
def test_refusals_name_what_is_missing(capsys):
    assert TensorRTEngine.unavailable()
    assert main(['build-engine']) == 1
    message = capsys.readouterr().err
    assert 'cannot build here: ' in message and TensorRTEngine.unavailable('fp16') in message


@pytest.mark.parametrize('arguments, message', [
    (['--max-batch', '0'], '--max-batch is 0'), (['--max-batch', '65'], 'give 1 to 64'),
    (['--max-inference-pixels', '3'], '--max-inference-pixels is 3'), (['--weights', 'nonsense'], 'nonsense')])
def test_wrong_arguments_are_named(capsys, arguments, message):
    assert main(['build-engine', *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize('size', ['640', '0x4', 'x'])
def test_a_wrong_size_is_named(capsys, size):
    with pytest.raises(SystemExit):
        main(['build-engine', '--size', size])
    assert f'{size!r} is not a size; give' in capsys.readouterr().err


def test_the_network_is_made_for_a_robot(capsys, tmp_path, weights):
    pytest.importorskip('torch')
    assert main(['build-engine', '--network-only', '--precision', 'fp32', '--out', str(tmp_path), '--json']) == 0
    made = json.loads(capsys.readouterr().out.splitlines()[-1])
    path, = tmp_path.iterdir()
    assert made['network'] == str(path) and weights.sha256[:12] in path.name and made['mb'] > 1


@pytest.fixture
def builds(monkeypatch, tmp_path):
    """What TensorRT was asked to build, on a machine where it only notes it."""
    profiles = []

    def note(network, profile, *_):
        profiles.append(profile)
        return b'engine'
    monkeypatch.setenv('LGSEG_CACHE', str(tmp_path))
    (tmp_path / 'network.onnx').write_bytes(b'network')
    monkeypatch.setattr(TensorRTEngine, 'unavailable', staticmethod(lambda precision='auto': None))
    monkeypatch.setattr(tensorrt_prebuild, 'identify', lambda *_: SAMPLE)
    monkeypatch.setattr(tensorrt_build, 'find_network', lambda *_: tmp_path / 'network.onnx')
    monkeypatch.setattr(tensorrt_build, 'build_engine', note)
    return profiles


def test_the_size_that_a_warning_names_is_built(builds, capsys):
    """An engine of the same identity is in the cache: only an option is a reason to build it again."""
    def build(*arguments):
        assert main(['build-engine', '--json', *arguments]) == 0
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
        return len(builds), result['existed'], result['shapes']['size'], result['shapes']['max_batch']
    assert build() == (1, False, [480, 640], 4)
    assert build() == build('--size', '640x480', '--max-batch', '4') == (1, True, [480, 640], 4)
    assert build('--size', '720x1280') == (2, False, [1280, 720], 4)
    assert clamp(network_size(1280, 720), builds[1][FRAMES_INPUT][2][1:3]) == network_size(1280, 720)
    assert build('--size', '720x1280') == build() == (2, True, [1280, 720], 4)
    assert build('--max-batch', '2') == (3, False, [1280, 720], 2)
    assert build('--force') == (4, False, [1280, 720], 2)


def test_a_folder_that_cannot_be_written_costs_no_engine(weights, monkeypatch, tmp_path):
    monkeypatch.setattr(tensorrt_build, 'find_network', lambda *_: None)

    def make(_, __, folder):
        path = Path(folder) / 'network.onnx'
        path.write_bytes(b'made')
        return path
    monkeypatch.setattr(tensorrt_build, 'make_network', make)
    (tmp_path / 'file').write_text('')
    assert tensorrt_build.read_network(weights, 'fp16', tmp_path / 'file' / 'engines') == b'made'
    assert tensorrt_build.read_network(weights, 'fp16', tmp_path) == b'made' and (tmp_path / 'network.onnx').exists()


def test_a_squeezed_image_names_the_command_that_fixes_it(weights, caplog, tmp_path):
    other = dataclasses.replace(weights, path=tmp_path / 'my street.safetensors')
    for trained, pixels, precision, options in (
            (weights, DEFAULT_PIXELS, 'auto', ''),
            (other, 230400, 'fp32', f" --weights '{other.path}' --max-inference-pixels 230400 --precision fp32")):
        caplog.clear()
        engine = TensorRTEngine.__new__(TensorRTEngine)   # without a GPU there is no engine to load
        engine.pixels, engine._warned_of_squeezing = pixels, False
        engine._max_frames_shape = profile_shapes(pixels, EngineShapes(), weights)[FRAMES_INPUT][2][:3]
        engine._build_command = build_command(trained, pixels, precision)
        for _ in range(2):
            engine._network_size(1280, 720)
        record, = caplog.records
        assert record.getMessage().endswith(f'; build it with: lgseg build-engine{options} --size 720x1280')


def test_an_engine_that_is_not_built_names_the_command(weights, monkeypatch, tmp_path):
    monkeypatch.setenv('LGSEG_CACHE', str(tmp_path))
    monkeypatch.setattr(tensorrt_engine, 'identify', lambda *_: SAMPLE)
    assert 'with: lgseg build-engine, or' in TensorRTEngine.not_ready(weights, DEFAULT_PIXELS)
    reason = TensorRTEngine.not_ready(weights, 9216, 'fp32')
    assert 'build-engine --max-inference-pixels 9216 --precision fp32, or' in reason


def test_without_cuda_python_it_says_what_to_install(monkeypatch):
    import sys

    from lgseg_ros.engines.cuda import load_runtime
    for module in ('cuda', 'cuda.bindings'):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EngineError, match='pip install cuda-python'):
        load_runtime()


def test_without_a_gpu_cuda_says_so():
    pytest.importorskip('cuda.bindings.runtime', reason='cuda-python is not installed')
    from lgseg_ros.engines.cuda import Cuda
    if has_gpu_device():
        pytest.skip('there is a GPU')
    with pytest.raises(EngineError, match='cuda[A-Z].*: .*'):
        Cuda().device()
