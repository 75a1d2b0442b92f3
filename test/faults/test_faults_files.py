"""Rows of the fault table: damaged or missing weights, text embeddings and caches."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from faults_table import fault, fault_rows
from lgseg_ros.model.weights import load_weights
from lgseg_ros.vocabulary.classes import VocabularyError
from lgseg_ros.vocabulary.text_embeddings import load_text_embeddings
from lifecycle_manager import ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, UNCONFIGURED, Manager
from ros_graph import NodeProcess, Peer, wait_until

FILES = 'Weights, ONNX, text embedding and cache files'


class ManagedNode:
    """A node that waits for a lifecycle manager; its weights lie in a folder that tests damage."""

    def __init__(self, folder):
        self.folder, self.original = folder, load_weights().path
        self.process = NodeProcess(
            'num_threads:=1', f'weights:={folder}/w.safetensors', 'autostart:=false', name='damaged'
        )
        self.peer = Peer('/damaged', subscribe=('mask',))
        self.manager = Manager(self.peer, 'damaged')

    def close(self):
        self.peer.__exit__()
        self.process.__exit__()

    def restore(self):
        """Copy the undamaged files again."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        for suffix in ('.safetensors', '.json', '.onnx'):
            shutil.copy(self.original.with_suffix(suffix), self.folder / f'w{suffix}')


@pytest.fixture(scope='module')
def managed_node(tmp_path_factory):
    node = ManagedNode(tmp_path_factory.mktemp('weights') / 'files')
    yield node
    node.close()


def truncate(suffix, size):
    return lambda folder: (folder / f'w{suffix}').write_bytes((folder / f'w{suffix}').read_bytes()[:size])


def overwrite(suffix, data):
    return lambda folder: (folder / f'w{suffix}').write_bytes(data)


def remove(suffix):
    return lambda folder: (folder / f'w{suffix}').unlink()


def flip_bit(folder):
    data = bytearray((folder / 'w.safetensors').read_bytes())
    data[-100] ^= 1
    (folder / 'w.safetensors').write_bytes(data)


def replace_by_folder(folder):
    (folder / 'w.safetensors').unlink()
    (folder / 'w.safetensors').mkdir()


def edit_text_embeddings(vectors=lambda vectors: vectors, names=lambda names: names):
    """Change the text embeddings or their names in the weights."""
    def damage(folder):
        from safetensors import safe_open
        from safetensors.numpy import save_file
        path = folder / 'w.safetensors'
        with safe_open(path, framework='numpy') as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()   # noqa: SIM118
        tensors['text.rows'] = vectors(tensors['text.rows'].copy())
        metadata['bank_names'] = json.dumps(names(json.loads(metadata['bank_names'])))
        save_file(tensors, path, metadata)
    return damage


def set_nan(vectors):
    vectors[3, 3] = np.nan
    return vectors


class PickleExploit:
    """Creates a file when it is unpickled."""

    MARKER = Path(tempfile.gettempdir(), f'lgseg_pickle_exploit_{os.getpid()}')

    def __reduce__(self):
        return Path.touch, (self.MARKER,)


EXPLOIT = pickle.dumps(PickleExploit())
DAMAGED = 'damaged or not of lgseg'
DAMAGES = [
    ('weights that do not exist', 'does not exist', remove('.safetensors')),
    ('a folder in place of the weights', 'does not exist', replace_by_folder),
    ('an empty weights file', DAMAGED, overwrite('.safetensors', b'')),
    ('a truncated weights file', DAMAGED, truncate('.safetensors', 100_000)),
    (
        'a weights file whose header claims 2^60 bytes',
        DAMAGED,
        overwrite('.safetensors', (2**60).to_bytes(8, 'little') + b'{}'),
    ),
    ('a weights file that is a pickle with code', DAMAGED, overwrite('.safetensors', EXPLOIT)),
    ('a weights file with one flipped bit', 'exported from other weights', flip_bit),
    (
        'weights with one name too few for their text embeddings',
        'names do not fit',
        edit_text_embeddings(names=lambda names: names[1:]),
    ),
    ('weights whose text embeddings contain NaN', 'not finite', edit_text_embeddings(vectors=set_nan)),
    ('weights whose names of text embeddings are not a list', DAMAGED, edit_text_embeddings(names=lambda names: 7)),
    ('a missing model card', 'w.json is missing', remove('.json')),
    ('a model card that is not JSON', DAMAGED, overwrite('.json', b'\xff\xfe{{{')),
    ('a model card that is a list', DAMAGED, overwrite('.json', b'[1, 2]')),
    ('a missing ONNX file', 'make it with: lgseg export', remove('.onnx')),
    ('a truncated ONNX file', 'cannot be loaded', truncate('.onnx', 1_000_000)),
    ('an ONNX file of random bytes', 'cannot be loaded', overwrite('.onnx', np.random.default_rng(0).bytes(5000))),
    ('an ONNX file that is a pickle with code', 'cannot be loaded', overwrite('.onnx', EXPLOIT)),
]


@fault_rows(FILES, 'damage, reason', [
    (description, f'configure fails: "{reason}"; after repair it succeeds', damage, reason)
    for description, reason, damage in DAMAGES])
def test_damaged_files(managed_node, damage, reason):
    managed_node.restore()
    damage(managed_node.folder)
    logged = len(managed_node.process.log)
    assert not managed_node.manager.change(CONFIGURE)
    wait_until(lambda: reason in managed_node.process.log[logged:], f'{reason!r} in the log, which holds '
               f'{managed_node.process.log[logged:]!r}')
    assert 'Traceback' not in managed_node.process.log and len(managed_node.process.log) - logged < 1500
    assert managed_node.manager.state() == UNCONFIGURED
    assert not PickleExploit.MARKER.exists()
    managed_node.restore()
    assert managed_node.manager.change(CONFIGURE) and managed_node.manager.change(CLEANUP)


@fault(
    FILES, 'a missing ONNX file, restored while the node runs', 'configure and activate succeed; masks are published'
)
def test_repaired_files(managed_node, street):
    managed_node.restore()
    (managed_node.folder / 'w.onnx').unlink()
    assert not managed_node.manager.change(CONFIGURE)
    managed_node.restore()
    assert managed_node.manager.change(CONFIGURE) and managed_node.manager.change(ACTIVATE)
    managed_node.peer.connect(managed_node.process)
    assert managed_node.peer.mask_of(cv2.resize(street[0], (160, 120)))
    assert managed_node.manager.change(DEACTIVATE) and managed_node.manager.change(CLEANUP)


@fault('Lifecycle', 'a transition that is not allowed in the current state, or that does not exist',
       'refused and logged; the state is unchanged and the process keeps running')
def test_transitions_that_are_not_allowed(managed_node):
    for transition in (ACTIVATE, CLEANUP, 99, 255):
        assert not managed_node.manager.change(transition)
        assert managed_node.manager.state() == UNCONFIGURED
    wait_until(lambda: 'transition 99 refused while unconfigured' in managed_node.process.log, 'the reason in the log')


@fault(FILES, 'weights deleted from disk while the node runs', 'masks and vocabulary changes continue')
def test_deleted_while_running(managed_node, street):
    managed_node.restore()
    assert managed_node.manager.change(CONFIGURE) and managed_node.manager.change(ACTIVATE)
    shutil.rmtree(managed_node.folder)
    managed_node.peer.connect(managed_node.process)
    assert managed_node.peer.set_vocabulary(['road', 'sky']).success
    assert managed_node.peer.mask_of(cv2.resize(street[0], (160, 120)))
    assert managed_node.manager.change(DEACTIVATE) and managed_node.manager.change(CLEANUP)


@fault_rows(
    FILES,
    'data',
    [
        (
            'a file of text embeddings that is plain text',
            'refused: "is not a file of text embeddings"',
            b'names: [road]',
        ),
        (
            'a file of text embeddings that is a pickle with code',
            'refused: "is not a file of text embeddings"; no code is run',
            EXPLOIT,
        ),
        (
            'a truncated file of text embeddings',
            'refused: "is not a file of text embeddings"',
            b'PK\x03\x04' + bytes(200),
        ),
    ],
)
def test_damaged_files_of_text_embeddings(tmp_path, data):
    (tmp_path / 'embeddings.npz').write_bytes(data)
    with pytest.raises(VocabularyError, match='is not a file of text embeddings'):
        load_text_embeddings(tmp_path / 'embeddings.npz')
    assert not PickleExploit.MARKER.exists()


@fault(FILES, 'a cache folder that is not writable',
       'the node starts; phrases of the weights are accepted, other phrases are refused')
def test_an_unwritable_cache(monkeypatch, street):
    monkeypatch.setenv('LGSEG_CACHE', '/proc/no/such/folder')   # read-only even for root
    with NodeProcess('num_threads:=1', name='cacheless') as process, Peer('/cacheless') as peer:
        peer.connect(process)
        assert peer.set_vocabulary(['road']).success
        answer = peer.set_vocabulary(['flumph'])
        assert not answer.success and 'flumph' in answer.message
        assert peer.mask_of(cv2.resize(street[0], (160, 120)))


ADD_TO_CACHE = """
import resource, sys
import numpy as np
from lgseg_ros.model.weights import load_weights
from lgseg_ros.vocabulary.text_source import TextSource
if int(sys.argv[3]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
warnings = []
cache = TextSource(load_weights(), sys.argv[1], warnings.append).cache
saved = [cache.add([f'{sys.argv[2]} {n}'], np.eye(1, cache.width, n), 'a photo of a {}') for n in range(20)]
found = cache.find([f'{sys.argv[2]} {n}' for n in range(20)])
print(all(saved), any(saved), len(found), len(warnings), len(cache.templates))
"""


def add_to_cache(folder, name, max_file_bytes=0):
    """Another process that adds 20 phrases; max_file_bytes: limit of the file size, as on a full disk."""
    return subprocess.Popen([sys.executable, '-c', ADD_TO_CACHE, str(folder), name, str(max_file_bytes)],
                            stdout=subprocess.PIPE, text=True)


def answer_of(process):
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return out.split()


@fault(FILES, 'three processes write one cache at once', 'no phrase is lost')
def test_concurrent_writers_of_one_cache(tmp_path):
    writers = [add_to_cache(tmp_path, name) for name in ('one', 'two', 'three')]
    assert all(answer_of(writer)[:3] == ['True', 'True', '20'] for writer in writers)
    assert answer_of(add_to_cache(tmp_path, 'four'))[4] == '80'


@fault(FILES, 'a full disk',
       'one warning; the phrases can be used until the process exits; the cache stays readable')
def test_a_full_disk(tmp_path):
    assert answer_of(add_to_cache(tmp_path, 'before'))[:3] == ['True', 'True', '20']
    assert answer_of(add_to_cache(tmp_path, 'full', 2000))[:4] == ['False', 'False', '20', '1']
    assert answer_of(add_to_cache(tmp_path, 'after'))[4] == '40'


@fault(FILES, 'a damaged cache file', 'the file is renamed, one warning is logged, and a new cache is created')
def test_a_damaged_cache(tmp_path):
    answer_of(add_to_cache(tmp_path, 'before'))
    path = next((tmp_path / 'text').glob('*.npz'))
    path.write_bytes(path.read_bytes()[:100])
    assert answer_of(add_to_cache(tmp_path, 'after'))[2:] == ['20', '1', '20']
    assert list((tmp_path / 'text').glob('*.set-aside'))


@fault(FILES, 'a cache file with one flipped bit, which marks it as encrypted',
       'the file is renamed with a warning; a new phrase is refused; the node keeps running')
def test_a_cache_marked_as_encrypted(tmp_path, monkeypatch, street):
    answer_of(add_to_cache(tmp_path, 'before'))
    path = next((tmp_path / 'text').glob('*.npz'))
    data = bytearray(path.read_bytes())
    data[data.index(b'PK\x01\x02') + 8] ^= 1
    path.write_bytes(data)
    monkeypatch.setenv('LGSEG_CACHE', str(tmp_path))
    with NodeProcess('num_threads:=1', name='sealed') as process, Peer('/sealed') as peer:
        peer.connect(process)
        answer = peer.set_vocabulary(['flumph'])
        assert not answer.success and "'flumph' is not known" in answer.message, answer.message
        wait_until(lambda: 'embedding cache set aside' in process.log and 'is encrypted' in process.log, 'the warning')
        assert peer.mask_of(cv2.resize(street[0], (160, 120)))
