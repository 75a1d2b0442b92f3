"""Rows of the fault table: engines that are missing, damaged, stale or fail to build."""

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from faults_table import fault
from lgseg_ros.engines import selection
from lgseg_ros.engines.base import EngineOptions
from lgseg_ros.engines.engine_cache import load_or_build
from lgseg_ros.engines.errors import EngineError
from lgseg_ros.engines.preprocessing import Frame
from lgseg_ros.engines.tensorrt_engine import TensorRTEngine
from lgseg_ros.vocabulary.vocabulary import VocabularyState
from ros_graph import NodeProcess, Peer, wait_until
from test_engine_cache import ENGINE, SAMPLE, Builder
from tiny_clip import ROOT, run_python

SELECTION = 'Engine selection'
CACHE = 'Engine cache (in the test process, with a small build function)'


@fault(SELECTION, 'engine:=tensorrt where TensorRT is not installed',
       'the next engine is used; a warning in the log and WARN in /diagnostics name what is missing')
def test_an_engine_that_is_not_installed():
    if TensorRTEngine.unavailable() is None:
        pytest.skip('TensorRT works here')
    with NodeProcess('engine:=tensorrt', 'num_threads:=1', name='asking') as node, Peer('/asking') as peer:
        def selection_statuses():
            return [status for message in peer.diagnostics for status in message.status
                    if any(pair.key == 'engine_selection' for pair in status.values)]
        status = wait_until(selection_statuses, 'the engine selection in /diagnostics')[-1]
        assert status.level == DiagnosticStatus.WARN and TensorRTEngine.unavailable() in status.message
        wait_until(lambda: 'tensorrt requested' in node.log, 'the warning')
        assert 'WARN' in next(line for line in node.log.splitlines() if 'tensorrt requested' in line)
        assert 'ready in' in node.log


BROKEN_TORCH = """
import sys
from lgseg_ros.engines import selection
from lgseg_ros.engines.base import EngineOptions
from lgseg_ros.model.weights import load_weights
selection.has_gpu_device = lambda: True
selections = []
options = EngineOptions(sys.argv[1], num_threads=1, max_inference_pixels=9216)
engine = selection.create_engine(options, load_weights(), selections.append)
print(engine.NAME, '|', selections[0])
"""


@pytest.mark.parametrize('requested', ['auto', 'tensorrt', 'torch'])
@fault(SELECTION, 'PyTorch cannot be imported on a machine with a GPU (libcudnn is missing, as on many Jetsons)',
       'the next engine is used, and the engine selection names the missing library')
def test_a_torch_that_cannot_be_imported(tmp_path, requested):
    reason = 'libcudnn.so.9: cannot open shared object file: No such file or directory'
    for package in ('torch', 'timm'):
        (tmp_path / package).mkdir()
        (tmp_path / package / '__init__.py').write_text(f'raise ImportError({reason!r})')
    done = run_python(BROKEN_TORCH, requested, PYTHONPATH=f'{tmp_path}:{ROOT}')
    name, _, reported = done.stdout.partition(' | ')
    assert name in ('openvino', 'onnxruntime') and f'torch: {reason}' in reported, done.stderr


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


@fault(SELECTION, 'the build of an engine that was requested by name fails',
       'the reason is logged as a warning; the next engine is used')
def test_a_failed_build(weights, street, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv('LGSEG_CACHE', str(tmp_path))
    monkeypatch.setitem(selection.ENGINES, 'cannot_build', selection.EngineEntry(__name__, 'CannotBuild', True))
    monkeypatch.setattr(selection, 'ENGINE_NAMES', (*selection.ENGINE_NAMES, 'cannot_build'))
    vocabulary = VocabularyState(weights.text_embeddings).replace(['road', 'sky'])
    options = EngineOptions('cannot_build', num_threads=1)
    engine = selection.create_engine(options, weights, vocabulary=vocabulary)
    assert engine.run([Frame(street[0], 'bgr')], vocabulary)[0].ids.shape == street[1].shape
    record, = (r for r in caplog.records if 'requested' in r.getMessage())
    assert record.levelname == 'WARNING' and 'no kernel for /backbone/Conv' in record.getMessage()
    assert not list((tmp_path / 'engines').glob('*.engine'))


@fault(CACHE, 'a truncated engine file', 'a warning names the file; the engine is rebuilt')
def test_a_damaged_engine_file(tmp_path, caplog):
    load_or_build(SAMPLE, Builder(), tmp_path)
    path = tmp_path / SAMPLE.file_name
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    assert load_or_build(SAMPLE, Builder(), tmp_path).engine == ENGINE
    assert 'is damaged' in caplog.text and 'built again' in caplog.text


@fault(CACHE, 'an engine file of an older TensorRT version',
       'a warning states what differs; the engine is rebuilt')
def test_a_stale_engine(tmp_path, caplog):
    load_or_build(SAMPLE._replace(runtime='TensorRT 10.2.0'), Builder(b'old'), tmp_path)
    assert load_or_build(SAMPLE, Builder(), tmp_path).engine == ENGINE
    assert 'runtime was TensorRT 10.2.0 and is TensorRT 10.3.0' in caplog.text
    assert len(list(tmp_path.glob('*.engine'))) == 1
