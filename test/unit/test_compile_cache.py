"""OpenVINO's compile cache: its key, and several processes with one folder."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lgseg_ros.engines import cache_key as module
from lgseg_ros.engines.cache_key import cache_key, cpu_parts, exclusive
from lgseg_ros.engines.openvino_engine import OpenVinoEngine
from lgseg_ros.utils import hardware
from lgseg_ros.utils.file_lock import LockTimeoutError
from lgseg_ros.vocabulary.vocabulary import VocabularyState
from self_test_faults import blobs, copy_weights, reverse_channels, segment

openvino = pytest.mark.skipif(OpenVinoEngine.unavailable() is not None, reason='openvino is not installed')
needs_half = pytest.mark.skipif(not hardware.has_half(), reason='this CPU has no bf16')
SIZE = (192, 256)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('LGSEG_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


@pytest.fixture
def camvid(weights):
    return VocabularyState(weights.text_embeddings).replace([], 'camvid')


def test_every_part_changes_the_key():
    parts = {'library': 'a 1', 'settings': {'num_threads': 1, 'precision': 'f32'}, **cpu_parts()}
    assert cache_key(parts) == cache_key(dict(reversed(parts.items())))
    others = [{**parts, 'library': 'a 2'}, {**parts, 'settings': {'num_threads': 2, 'precision': 'f32'}},
              {**parts, 'settings': {'num_threads': 1, 'precision': 'bf16'}}, {**parts, 'cpu_features': ['avx2']},
              {**parts, 'cpu': 'another'}]
    assert len({cache_key(part) for part in (parts, *others)}) == 6


def test_one_process_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'LOCK_SECONDS', 0.2)
    with exclusive(tmp_path / 'folder'):
        with pytest.raises(LockTimeoutError, match='held by another process'), exclusive(tmp_path / 'folder'):
            pass
    with exclusive(tmp_path / 'folder'):
        assert (tmp_path / 'folder').is_dir()


@openvino
def test_everything_that_shapes_a_graph_has_its_own_folder(weights, tmp_path, monkeypatch):
    """Precision, threads, size, CPU, library and the file's content."""
    import openvino as library
    names = {OpenVinoEngine(weights, 1, precision='fp32')._cache_name(SIZE),
             OpenVinoEngine(weights, 1, precision='fp32')._cache_name((64, 64)),
             OpenVinoEngine(weights, 2, precision='fp32')._cache_name(SIZE)}
    copied = copy_weights(weights, tmp_path / 'weights')
    assert OpenVinoEngine(copied, 1, precision='fp32')._cache_name(SIZE) in names, 'a copy is the same graph'
    reverse_channels(copied.onnx_path)
    names.add(OpenVinoEngine(copied, 1, precision='fp32')._cache_name(SIZE))
    engine = OpenVinoEngine(weights, 1, precision='fp32')
    engine.precision = 'fp16'
    names.add(engine._cache_name(SIZE))
    engine.precision = 'fp32'
    monkeypatch.setattr(module, 'cpu_info', lambda: ('another CPU', {'avx2'}))
    names.add(engine._cache_name(SIZE))
    monkeypatch.setattr(library, 'get_version', lambda: '2099.1')
    names.add(engine._cache_name(SIZE))
    assert len(names) == 7


@openvino
@pytest.mark.parametrize('order', [('fp32', 'fp16'), ('fp16', 'fp32'), ('fp32', 'int8', 'fp16', 'fp32')])
def test_precisions_after_each_other_share_a_cache(weights, engine, street, camvid, order, cache):
    order = [precision for precision in order if OpenVinoEngine.unavailable(precision) is None]
    if len(order) < 2:
        pytest.skip('this CPU has one precision')
    expected = segment(engine, street[0], camvid)
    for precision in order:
        mine = OpenVinoEngine(weights, 1, precision=precision)
        assert np.mean(segment(mine, street[0], camvid).ids == expected.ids) > (0.995 if precision == 'fp32' else 0.98)
    assert len(list((cache / 'openvino').glob('*-360x480-*/*.blob'))) == len(set(order))


@openvino
def test_the_cache_of_an_older_version_is_not_read(weights, street, camvid, engine, cache):
    """The folder in which all graphs lay together."""
    mine = OpenVinoEngine(weights, 1, precision='fp32')
    mine.warm_up(camvid)
    blob, = blobs(cache, 'fp32-360x480')
    old = cache / 'openvino' / blob.name
    old.write_bytes(b'not to be read')
    segment(OpenVinoEngine(weights, 1, precision='fp32'), street[0], camvid)
    assert old.read_bytes() == b'not to be read'


PROCESS = '''
import json, sys
import numpy as np
from lgseg_ros.engines.preprocessing import Frame
from lgseg_ros.engines.openvino_engine import OpenVinoEngine
from lgseg_ros.model.weights import load_weights
from lgseg_ros.vocabulary.vocabulary import VocabularyState
weights = load_weights()
vocabulary = VocabularyState(weights.text_embeddings).replace([], 'camvid')
engine = OpenVinoEngine(weights, 1, precision='fp32')
sys.stdin.readline()
mask = engine.run([Frame(np.load(sys.argv[1]), 'bgr')], vocabulary)[0]
np.save(sys.argv[2], mask.ids)
print(json.dumps([result.agreement for result in engine.self_test.results]))
'''


@openvino
def test_two_processes_share_a_folder_at_once(weights, street, camvid, engine, cache, tmp_path):
    np.save(tmp_path / 'image.npy', street[0])
    image, ids = str(tmp_path / 'image.npy'), [str(tmp_path / f'{n}.npy') for n in range(3)]
    processes = [subprocess.Popen([sys.executable, '-c', PROCESS, image, file],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                  cwd=Path(__file__).parents[2]) for file in ids]
    for process in processes:   # they begin to compile together
        process.stdin.write('go\n')
        process.stdin.flush()
    expected = segment(engine, street[0], camvid).ids
    for n, process in enumerate(processes):
        out, log = process.communicate(timeout=100)
        assert process.returncode == 0, log
        assert all(agreement > 0.99 for agreement in json.loads(out))
        assert np.mean(np.load(tmp_path / f'{n}.npy') == expected) > 0.995
    assert len(blobs(cache, 'fp32-360x480')) == 1
