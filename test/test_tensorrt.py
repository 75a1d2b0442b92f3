"""What of the TensorRT engine can be run without a GPU: refusals, shapes, and the command that builds."""

import json

import pytest

from lgseg_ros.cli.main import main
from lgseg_ros.engines.frames import DEFAULT_PIXELS, SMALLEST, STEP, network_size
from lgseg_ros.engines.gpu import EngineError, has_gpu_device
from lgseg_ros.engines.tensorrt import TensorRTEngine, clamp
from lgseg_ros.engines.tensorrt_build import WIDEST, Shapes, profile_shapes
from lgseg_ros.vocabulary.classes import MAX_ROWS

NO_GPU = pytest.mark.skipif(TensorRTEngine.unavailable() is None, reason='TensorRT works here')


@pytest.mark.parametrize('pixels', [DEFAULT_PIXELS, 64 * 64, 1024 * 512])
@pytest.mark.parametrize('height, width', [(480, 640), (720, 1280), (1080, 1920), (1000, 1000), (100, 240), (20, 20)])
def test_one_engine_takes_every_usual_picture(weights, pixels, height, width):
    profile = profile_shapes(pixels, Shapes(), weights)
    least, usual, largest = (shape[1:3] for shape in profile['frames'])
    size = network_size(height, width, pixels)
    assert all(a <= b <= c for a, b, c in zip(least, size, largest))
    assert usual == network_size(480, 640, pixels) and clamp(size, largest) == size
    assert largest[0] * largest[1] < 2 * max(pixels, 64 * 64)   # memory is taken for the largest
    assert all(side % STEP == 0 for side in (*least, *usual, *largest))


def test_an_engine_for_unusual_pictures_takes_them_too(weights):
    size = 1280, 720   # portrait
    largest = profile_shapes(DEFAULT_PIXELS, Shapes(size, 2), weights)['frames'][2]
    assert clamp(network_size(*size), largest[1:3]) == network_size(*size) and largest[0] == 2
    usual = profile_shapes(DEFAULT_PIXELS, Shapes(), weights)['frames'][2]
    squeezed = clamp(network_size(*size), usual[1:3])
    assert squeezed != network_size(*size) and min(squeezed) >= SMALLEST and max(squeezed) <= max(usual[1:3])
    assert WIDEST > 16 / 9


def test_rows_from_one_to_all(weights):
    profile = profile_shapes(DEFAULT_PIXELS, Shapes(), weights)
    dim = weights.bank.vectors.shape[1]
    assert profile['rows'][0] == (1, dim) and profile['rows'][2] == (MAX_ROWS, dim)
    assert profile['row_ids'][2] == (MAX_ROWS,)


@NO_GPU
def test_refusals_name_what_is_missing(capsys):
    assert TensorRTEngine.unavailable()
    assert main(['build-engine']) == 1
    said = capsys.readouterr().err
    assert 'cannot build here: ' in said and TensorRTEngine.unavailable('fp16') in said


@pytest.mark.parametrize('arguments, said', [
    (['--max-batch', '0'], '--max-batch is 0'), (['--max-batch', '65'], 'give 1 to 64'),
    (['--network-pixels', '3'], '--network-pixels is 3'), (['--weights', 'nonsense'], 'nonsense')])
def test_wrong_arguments_are_named(capsys, arguments, said):
    assert main(['build-engine', *arguments]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize('size', ['640', '0x4', 'x'])
def test_a_wrong_size_is_named(capsys, size):
    with pytest.raises(SystemExit):
        main(['build-engine', '--size', size])
    assert f'{size!r} is not a size such as' in capsys.readouterr().err


def test_the_network_is_made_for_a_robot(capsys, tmp_path, weights):
    assert main(['build-engine', '--network-only', '--precision', 'fp32', '--out', str(tmp_path), '--json']) == 0
    made = json.loads(capsys.readouterr().out.splitlines()[-1])
    path, = tmp_path.iterdir()
    assert made['network'] == str(path) and weights.sha256[:12] in path.name and made['mb'] > 1


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
