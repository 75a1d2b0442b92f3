"""Rows of the fault table: weights, banks and caches that are damaged, missing or in the way."""

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
from lgseg_ros.engines.weights import load_weights
from lgseg_ros.vocabulary.classes import VocabularyError
from lgseg_ros.vocabulary.text_embeddings import load_text_embeddings
from lifecycle_manager import ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, UNCONFIGURED, Manager
from ros_graph import NodeProcess, Peer, wait_until

FILES = 'Weights, ONNX, bank and cache files'


class Managed:
    """A node that waits for a lifecycle manager, with weights in a folder that rows damage."""

    def __init__(self, folder):
        self.folder, self.original = folder, load_weights().path
        self.process = NodeProcess('num_threads:=1', f'weights:={folder}/w.safetensors', 'autostart:=false', name='damaged')
        self.peer = Peer('/damaged', listen=('mask',))
        self.manager = Manager(self.peer, 'damaged')

    def close(self):
        self.peer.__exit__()
        self.process.__exit__()

    def heal(self):
        """Undamaged files again."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        for suffix in ('.safetensors', '.json', '.onnx'):
            shutil.copy(self.original.with_suffix(suffix), self.folder / f'w{suffix}')


@pytest.fixture(scope='module')
def managed(tmp_path_factory):
    node = Managed(tmp_path_factory.mktemp('weights') / 'files')
    yield node
    node.close()


def cut(suffix, size):
    return lambda folder: (folder / f'w{suffix}').write_bytes((folder / f'w{suffix}').read_bytes()[:size])


def put(suffix, data):
    return lambda folder: (folder / f'w{suffix}').write_bytes(data)


def remove(suffix):
    return lambda folder: (folder / f'w{suffix}').unlink()


def flip_a_bit(folder):
    data = bytearray((folder / 'w.safetensors').read_bytes())
    data[-100] ^= 1
    (folder / 'w.safetensors').write_bytes(data)


def a_folder(folder):
    (folder / 'w.safetensors').unlink()
    (folder / 'w.safetensors').mkdir()


def rewrite(rows=lambda rows: rows, names=lambda names: names):
    """Change the bank inside the weights."""
    def damage(folder):
        from safetensors import safe_open
        from safetensors.numpy import save_file
        path = folder / 'w.safetensors'
        with safe_open(path, framework='numpy') as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()   # noqa: SIM118
        tensors['text.rows'] = rows(tensors['text.rows'].copy())
        metadata['bank_names'] = json.dumps(names(json.loads(metadata['bank_names'])))
        save_file(tensors, path, metadata)
    return damage


def not_a_number(rows):
    rows[3, 3] = np.nan
    return rows


class Trap:
    """Leaves a file behind when it is unpickled."""

    SPRUNG = Path(tempfile.gettempdir(), f'lgseg_trap_of_{os.getpid()}_was_sprung')

    def __reduce__(self):
        return Path.touch, (self.SPRUNG,)


TRAP = pickle.dumps(Trap())
DAMAGED = 'damaged or not of lgseg'
DAMAGES = [
    ('weights that do not exist', 'does not exist', remove('.safetensors')),
    ('weights that are a folder', 'does not exist', a_folder),
    ('empty weights', DAMAGED, put('.safetensors', b'')),
    ('weights cut short', DAMAGED, cut('.safetensors', 100_000)),
    ('weights whose header is 2^60 bytes long', DAMAGED, put('.safetensors', (2**60).to_bytes(8, 'little') + b'{}')),
    ('weights that are a pickle with code in it', DAMAGED, put('.safetensors', TRAP)),
    ('weights with one bit flipped', 'exported from other weights', flip_a_bit),
    ('a bank with a name too few', 'names do not fit', rewrite(names=lambda names: names[1:])),
    ('a bank whose vectors are not numbers', 'not finite', rewrite(rows=not_a_number)),
    ('bank names that are not a list', DAMAGED, rewrite(names=lambda names: 7)),
    ('no model card', 'w.json is missing', remove('.json')),
    ('a model card that is not JSON', DAMAGED, put('.json', b'\xff\xfe{{{')),
    ('a model card that is a list', DAMAGED, put('.json', b'[1, 2]')),
    ('no ONNX file', 'make it with: lgseg export', remove('.onnx')),
    ('an ONNX file cut short', 'cannot be loaded', cut('.onnx', 1_000_000)),
    ('an ONNX file of random bytes', 'cannot be loaded', put('.onnx', np.random.default_rng(0).bytes(5000))),
    ('an ONNX file that is a pickle with code in it', 'cannot be loaded', put('.onnx', TRAP)),
]


@fault_rows(FILES, 'damage, reason', [(broken, f'configure fails: "{reason}"; after repair it succeeds', damage, reason)
                                      for broken, reason, damage in DAMAGES])
def test_damaged_files(managed, damage, reason):
    managed.heal()
    damage(managed.folder)
    told = len(managed.process.log)
    assert not managed.manager.change(CONFIGURE)
    wait_until(lambda: reason in managed.process.log[told:], f'{reason!r} in the log, which holds '
               f'{managed.process.log[told:]!r}')
    assert 'Traceback' not in managed.process.log and len(managed.process.log) - told < 1500
    assert managed.manager.state() == UNCONFIGURED
    assert not Trap.SPRUNG.exists()
    managed.heal()
    assert managed.manager.change(CONFIGURE) and managed.manager.change(CLEANUP)


@fault(FILES, 'damaged weights replaced by good ones, in the same run', 'configure, activate, and masks')
def test_repaired_files(managed, street):
    managed.heal()
    (managed.folder / 'w.onnx').unlink()
    assert not managed.manager.change(CONFIGURE)
    managed.heal()
    assert managed.manager.change(CONFIGURE) and managed.manager.change(ACTIVATE)
    managed.peer.connect(managed.process)
    assert managed.peer.mask_of(cv2.resize(street[0], (160, 120)))
    assert managed.manager.change(DEACTIVATE) and managed.manager.change(CLEANUP)


@fault('Lifecycle', 'a transition that the state does not allow, or that does not exist',
       'refused and said; the state stays and the process lives')
def test_transitions_that_are_not_allowed(managed):
    for transition in (ACTIVATE, CLEANUP, 99, 255):
        assert not managed.manager.change(transition)
        assert managed.manager.state() == UNCONFIGURED
    wait_until(lambda: 'transition 99 refused while unconfigured' in managed.process.log, 'the reason in the log')


@fault(FILES, 'weights deleted from the disk while the node runs', 'masks and words go on')
def test_deleted_while_running(managed, street):
    managed.heal()
    assert managed.manager.change(CONFIGURE) and managed.manager.change(ACTIVATE)
    shutil.rmtree(managed.folder)
    managed.peer.connect(managed.process)
    assert managed.peer.set_vocabulary(['road', 'sky']).success
    assert managed.peer.mask_of(cv2.resize(street[0], (160, 120)))
    assert managed.manager.change(DEACTIVATE) and managed.manager.change(CLEANUP)


@fault_rows(FILES, 'data', [
    ('a bank file that is text', 'refused: "is not a file of text embeddings"', b'names: [road]'),
    ('a bank file that is a pickle with code in it', 'refused: "is not a file of text embeddings"; nothing is run',
     TRAP),
    ('a bank file cut short', 'refused: "is not a file of text embeddings"', b'PK\x03\x04' + bytes(200)),
])
def test_damaged_bank_files(tmp_path, data):
    (tmp_path / 'bank.npz').write_bytes(data)
    with pytest.raises(VocabularyError, match='is not a file of text embeddings'):
        load_text_embeddings(tmp_path / 'bank.npz')
    assert not Trap.SPRUNG.exists()


@fault(FILES, 'a cache folder that cannot be written', 'the node starts and knows its own words; others are refused')
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
from lgseg_ros.engines.weights import load_weights
from lgseg_ros.vocabulary.text_source import TextSource
if int(sys.argv[3]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
said = []
cache = TextSource(load_weights(), sys.argv[1], said.append).cache
kept = [cache.add([f'{sys.argv[2]} {n}'], np.eye(1, cache.width, n), 'a photo of a {}') for n in range(20)]
found = cache.find([f'{sys.argv[2]} {n}' for n in range(20)])
print(all(kept), any(kept), len(found), len(said), len(cache.templates))
"""


def add_to_cache(folder, name, most_bytes=0):
    """Another process that adds 20 words; most_bytes: no file may be larger, as on a full disk."""
    return subprocess.Popen([sys.executable, '-c', ADD_TO_CACHE, str(folder), name, str(most_bytes)],
                            stdout=subprocess.PIPE, text=True)


def answer_of(process):
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return out.split()


@fault(FILES, 'three processes write one cache at once', 'no word is lost')
def test_one_cache_for_all(tmp_path):
    writers = [add_to_cache(tmp_path, name) for name in ('one', 'two', 'three')]
    assert all(answer_of(writer)[:3] == ['True', 'True', '20'] for writer in writers)
    assert answer_of(add_to_cache(tmp_path, 'four'))[4] == '80'


@fault(FILES, 'a disk that is full',
       'one warning; the words are known until the process ends; the cache stays readable')
def test_a_full_disk(tmp_path):
    assert answer_of(add_to_cache(tmp_path, 'before'))[:3] == ['True', 'True', '20']
    assert answer_of(add_to_cache(tmp_path, 'full', 2000))[:4] == ['False', 'False', '20', '1']
    assert answer_of(add_to_cache(tmp_path, 'after'))[4] == '40'


@fault(FILES, 'a damaged cache file', 'it is set aside, said once, and a new one begun')
def test_a_damaged_cache(tmp_path):
    answer_of(add_to_cache(tmp_path, 'before'))
    path = next((tmp_path / 'text').glob('*.npz'))
    path.write_bytes(path.read_bytes()[:100])
    assert answer_of(add_to_cache(tmp_path, 'after'))[2:] == ['20', '1', '20']
    assert list((tmp_path / 'text').glob('*.set-aside'))


@fault(FILES, 'one bit of a cache file flipped, so that it calls itself encrypted',
       'set aside with a warning; a new word is refused as without it; the node lives')
def test_a_cache_that_calls_itself_encrypted(tmp_path, monkeypatch, street):
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
