"""Rows of the fault table: engines that are missing, damaged, stale or cannot be built."""

import types

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from faults_table import fault
from lgseg_ros.engines import selection
from lgseg_ros.engines.engine_cache import load_or_build
from lgseg_ros.engines.preprocessing import DEFAULT_PIXELS, Frame
from lgseg_ros.engines.gpu import EngineError
from lgseg_ros.engines.tensorrt_engine import TensorRTEngine
from lgseg_ros.vocabulary.vocabulary import VocabularyState
from ros_graph import NodeProcess, Peer, wait_until
from test_engine_cache import ENGINE, SAMPLE, Builder
from tiny_clip import ROOT, run_python

CHOICE = 'The choice of the engine'
BUILT = 'Built engines (in the test\'s own process, with a small build function)'


@fault(CHOICE, 'engine:=tensorrt where TensorRT is not installed',
       'the next engine runs; a warning in the log and WARN in /diagnostics say what is missing')
def test_an_engine_that_is_not_installed():
    if TensorRTEngine.unavailable() is None:
        pytest.skip('TensorRT works here')
    with NodeProcess('engine:=tensorrt', 'num_threads:=1', name='asking') as node, Peer('/asking') as peer:
        def told():
            return [status for message in peer.diagnostics for status in message.status
                    if any(pair.key == 'engine_selection' for pair in status.values)]
        status = wait_until(told, 'the choice in /diagnostics')[-1]
        assert status.level == DiagnosticStatus.WARN and TensorRTEngine.unavailable() in status.message
        wait_until(lambda: 'tensorrt asked for' in node.log, 'the warning')
        assert 'WARN' in next(line for line in node.log.splitlines() if 'tensorrt asked for' in line)
        assert 'ready in' in node.log


BROKEN_TORCH = """
import sys, types
from lgseg_ros.engines import selection
from lgseg_ros.engines.weights import load_weights
factory.has_gpu_device = lambda: True
choices = []
engine = factory.create_engine(types.SimpleNamespace(engine=sys.argv[1], threads=1, max_inference_pixels=9216),
                               load_weights(), choices.append)
print(engine.NAME, '|', choices[0])
"""


@pytest.mark.parametrize('asked', ['auto', 'tensorrt', 'torch'])
@fault(CHOICE, 'a PyTorch that cannot be imported, on a machine with a GPU (libcudnn is missing, as on many a Jetson)',
       'the next engine gives the masks, and the choice names the missing library')
def test_a_torch_that_cannot_be_imported(tmp_path, asked):
    reason = 'libcudnn.so.9: cannot open shared object file: No such file or directory'
    for package in ('torch', 'timm'):
        (tmp_path / package).mkdir()
        (tmp_path / package / '__init__.py').write_text(f'raise ImportError({reason!r})')
    done = run_python(BROKEN_TORCH, asked, PYTHONPATH=f'{tmp_path}:{ROOT}')
    name, _, told = done.stdout.partition(' | ')
    assert name in ('openvino', 'onnxruntime') and f'torch: {reason}' in told, done.stderr


class CannotBuild:
    """An engine whose build fails, as TensorRT's does on a GPU that it no longer supports."""

    NAME = 'cannot_build'

    def __init__(self, weights, num_threads, pixels, precision):
        def build():
            raise EngineError('TensorRT cannot build the engine: no kernel for /backbone/Conv')
        load_or_build(SAMPLE, build)

    @staticmethod
    def unavailable(precision):
        return None


@fault(CHOICE, 'an engine asked for by name whose build fails',
       'the reason is a warning, the next engine gives the masks')
def test_a_build_that_fails(weights, street, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv('LGSEG_CACHE', str(tmp_path))
    monkeypatch.setitem(selection.ENGINES, 'cannot_build', selection.Entry(__name__, 'CannotBuild', 'gpu'))
    monkeypatch.setattr(selection, 'ENGINE_NAMES', (*selection.ENGINE_NAMES, 'cannot_build'))
    words = VocabularyState(weights.text_embeddings).replace(['road', 'sky'])
    settings = types.SimpleNamespace(engine='cannot_build', num_threads=1, max_inference_pixels=DEFAULT_PIXELS)
    engine = selection.create_engine(settings, weights, vocabulary=words)
    assert engine.run([Frame(street[0], 'bgr')], words)[0].ids.shape == street[1].shape
    record, = (r for r in caplog.records if 'asked for' in r.getMessage())
    assert record.levelname == 'WARNING' and 'no kernel for /backbone/Conv' in record.getMessage()
    assert not list((tmp_path / 'engines').glob('*.engine'))


@fault(BUILT, 'an engine file cut in half', 'a warning names it, and it is built again in its place')
def test_a_damaged_engine_file(tmp_path, caplog):
    load_or_build(SAMPLE, Builder(), tmp_path)
    path = tmp_path / SAMPLE.file_name
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    assert load_or_build(SAMPLE, Builder(), tmp_path).engine == ENGINE
    assert 'is damaged' in caplog.text and 'built again' in caplog.text


@fault(BUILT, 'an engine of the TensorRT before an upgrade',
       'a warning says what differs, and it is built again in its place')
def test_a_stale_engine(tmp_path, caplog):
    load_or_build(SAMPLE._replace(runtime='TensorRT 10.2.0'), Builder(b'old'), tmp_path)
    assert load_or_build(SAMPLE, Builder(), tmp_path).engine == ENGINE
    assert 'runtime was TensorRT 10.2.0 and is TensorRT 10.3.0' in caplog.text
    assert len(list(tmp_path.glob('*.engine'))) == 1
