"""The sources of text embeddings: weights, cache, CLIP; with a real, very small CLIP."""

import os
import pickle
import resource
import socket
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

from lgseg_ros.model.weights import load_weights
from lgseg_ros.vocabulary.classes import VocabularyError
from lgseg_ros.vocabulary.embedding_cache import MAX_ENTRIES, EmbeddingCache
from lgseg_ros.vocabulary.embedding_file import Embeddings, read_embeddings, write_embeddings
from lgseg_ros.vocabulary.text_source import TextSource
from lgseg_ros.vocabulary.text_space import TextSpace, check_template, read_space
from lgseg_ros.vocabulary.vocabulary import VocabularyState
from tiny_clip import CLASS_NAMES, ROOT, WITHOUT_CLIP, run_python

SPACE = TextSpace('some-model', 'some-tag')


@pytest.fixture
def warnings():
    return []


# --- the order of sources


def test_a_user_without_a_home_folder_has_no_cache():
    """As a numeric user id in a container. The folder is not in /tmp, where any user may create files."""
    if os.getuid():
        pytest.skip('only root can become another user')
    code = '''
import os
from lgseg_ros.utils.paths import cache_folder
from lgseg_ros.vocabulary import clip_checkpoint
os.setuid(54321)
assert not clip_checkpoint._caches_hold_weights("ViT-B-16")
print(cache_folder())'''
    environment = {name: value for name, value in os.environ.items()
             if name not in ('HOME', 'LGSEG_CACHE', 'XDG_CACHE_HOME')}
    done = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == '/nonexistent/.cache/lgseg', done.stderr


def test_a_new_phrase_is_embedded_and_cached(tiny_clip_weights, tiny_clip_folder):
    source = TextSource(tiny_clip_weights)
    text_embeddings = source.lookup(['car', 'Euro_Pallet', 'car', 'fork lift'])
    assert text_embeddings.shape == (4, 8) and text_embeddings.dtype == np.float32
    assert np.allclose(np.linalg.norm(text_embeddings, axis=1), 1, atol=1e-3)   # the weights store them in fp16
    assert np.array_equal(text_embeddings[0], tiny_clip_weights.text_embeddings.lookup(['car'])[0])
    assert np.array_equal(text_embeddings[0], text_embeddings[2])
    assert list(source.cache.templates) == ['euro pallet', 'fork lift']
    completed = run_python(WITHOUT_CLIP + '''
from lgseg_ros.model.weights import load_weights
from lgseg_ros.vocabulary.text_source import TextSource
print(TextSource(load_weights(sys.argv[1])).lookup(['euro pallet']).tobytes().hex())''',
                        tiny_clip_folder / 'small.safetensors')
    cached = np.frombuffer(bytes.fromhex(completed.stdout.strip()), np.float32)
    assert np.allclose(cached, text_embeddings[1], atol=1e-6), completed.stderr


def test_phrases_of_the_weights_need_no_encoder(tiny_clip_weights, tiny_clip_folder):
    completed = run_python('''
import sys
from lgseg_ros.model.weights import load_weights
from lgseg_ros.vocabulary.text_source import TextSource
TextSource(load_weights(sys.argv[1])).lookup(['car', 'sky'])
print('torch' in sys.modules, 'open_clip' in sys.modules)''', tiny_clip_folder / 'small.safetensors')
    assert completed.stdout.strip() == 'False False', completed.stderr


def test_new_phrases_are_those_that_only_the_encoder_can_embed(tiny_clip_weights):
    source = TextSource(tiny_clip_weights)
    assert source.new_phrases(['car', 'Fork_Lift', 'fork lift', 'crate']) == ['fork lift', 'crate']
    assert list(source.embed(['fork lift'])) == ['fork lift']
    assert source.new_phrases(['car', 'fork lift', 'crate']) == ['crate']
    assert TextSource(tiny_clip_weights).new_phrases(['fork lift']) == []   # as in another process: cached


def test_without_clip_a_new_phrase_is_refused_with_the_fix(tiny_clip_weights, tiny_clip_folder):
    completed = run_python(WITHOUT_CLIP + '''
from lgseg_ros.model.weights import load_weights
from lgseg_ros.vocabulary.text_source import TextSource
source = TextSource(load_weights(sys.argv[1]))
for phrases in (['car', 'sidewlk', 'forklift'], [f'unknown phrase {i} ' + 'x' * 80 for i in range(255)]):
    try:
        source.lookup(phrases)
    except ValueError as error:
        print(error)''', tiny_clip_folder / 'small.safetensors')
    short, long = completed.stdout.splitlines()
    assert "'sidewlk' is not known (near: sidewalk" in short and "'forklift' is not known (near: fork" in short
    assert 'open_clip is not installed here' in short and 'lgseg embed "sidewlk" "forklift"' in short
    assert len(long) < 750 and 'more; ' in long


def test_a_refusal_changes_no_vocabulary(tiny_clip_weights, monkeypatch):
    state = VocabularyState(TextSource(tiny_clip_weights))
    before = state.replace(['car', 'lorry=truck|articulated lorry'], confidence_threshold=0.25)
    monkeypatch.setenv('LGSEG_CLIP_WEIGHTS', 'nowhere.safetensors')
    refusing = VocabularyState(TextSource(tiny_clip_weights))
    with pytest.raises(VocabularyError, match="'snow plough' is not known.*nowhere.safetensors does not exist"):
        refusing.replace(['car', 'snow plough'])
    assert refusing.current is None
    after = state.replace(['sky'])
    assert before.texts == ('car', 'lorry=truck|articulated lorry') and before.version == 1
    assert (after.version, after.texts, after.confidence_threshold) == (2, ('sky',), 0.25)


# --- the text encoder


@pytest.mark.parametrize('entry, template, expected', [
    ('ViT-B-16 (OpenAI)', 'a photo of a X', TextSpace('ViT-B-16', 'openai', 'a photo of a {}')),
    ('ViT-L-14/laion2b_s32b_b82k', None, TextSpace('ViT-L-14', 'laion2b_s32b_b82k')),
    ({'model': 'RN50', 'pretrained': 'cc12m', 'template': 'the {}'}, None, TextSpace('RN50', 'cc12m', 'the {}')),
    (None, None, None), ('CLIP', None, None), ({'model': 'RN50'}, None, None),
    ({'model': 1, 'pretrained': 2}, None, None),
])
def test_the_text_encoder_in_model_cards(entry, template, expected):
    assert read_space(entry, template) == expected
    if expected:
        assert read_space(expected.as_dict()) == expected


def test_names_of_the_same_text_encoder():
    openai = TextSpace('ViT-B-16', 'openai')
    assert openai.same_vectors(TextSpace('ViT-B-16-quickgelu', 'OpenAI', 'the {}'))
    assert not openai.same_vectors(TextSpace('ViT-B-16', 'laion400m_e32'))
    assert not openai.same_vectors(TextSpace('ViT-B-32', 'openai'))


def test_a_checkpoint_of_another_text_encoder_is_refused(tiny_clip_weights, tiny_clip_folder, monkeypatch):
    monkeypatch.setenv('LGSEG_CLIP_WEIGHTS', str(tiny_clip_folder / 'other.safetensors'))
    source = TextSource(tiny_clip_weights)
    for _ in range(2):
        with pytest.raises(VocabularyError,
                           match=r'other\.safetensors: its text encoder does not match small\.safetensors'):
            source.lookup(['forklift'])
    assert source.cache.templates == {}


class PickleExploit:
    def __reduce__(self):
        return os.mkdir, ('code-was-executed',)


@pytest.mark.parametrize('name', ['truncated.safetensors', 'text.pt', 'pickle.pt'])
def test_damaged_and_hostile_checkpoints_are_refused(tiny_clip_weights, tiny_clip_folder, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    content = {'truncated.safetensors': (tiny_clip_folder / 'right.safetensors').read_bytes()[:5000],
               'text.pt': b'not a checkpoint', 'pickle.pt': pickle.dumps({'state_dict': PickleExploit()})}
    (tmp_path / name).write_bytes(content[name])
    monkeypatch.setenv('LGSEG_CLIP_WEIGHTS', str(tmp_path / name))
    with pytest.raises(VocabularyError, match="'forklift' is not known.*cannot be loaded as tiny") as caught:
        TextSource(tiny_clip_weights).lookup(['forklift'])
    assert len(str(caught.value)) < 800
    assert not (tmp_path / 'code-was-executed').exists()


def test_weights_without_a_text_encoder_have_only_their_own_phrases(tiny_clip_weights, tiny_clip_folder, tmp_path):
    for name in ('small.safetensors', 'small.json'):
        (tmp_path / name).write_bytes((tiny_clip_folder / name).read_bytes())
    (tmp_path / 'small.json').write_text('{}')
    source = TextSource(load_weights(tmp_path / 'small.safetensors'))
    assert len(source.lookup(CLASS_NAMES)) == len(CLASS_NAMES)
    with pytest.raises(VocabularyError, match='does not name its text encoder'):
        source.lookup(['forklift'])


def test_a_phrase_longer_than_the_context_is_refused(tiny_clip_weights):
    with pytest.raises(VocabularyError, match='too long for the text encoder'):
        TextSource(tiny_clip_weights).lookup(['a ' * 45])


@pytest.mark.parametrize('template', ['a photo', '{} and {}', ''])
def test_templates_need_exactly_one_placeholder(template):
    with pytest.raises(VocabularyError, match='needs {} once'):
        check_template(template)


def test_torch_is_not_imported_because_of_other_downloaded_models(tmp_path):
    """A misspelt phrase must not import PyTorch on machines on which some other model was downloaded."""
    pytest.importorskip('open_clip')
    completed = run_python('''
import sys
from pathlib import Path
from lgseg_ros.vocabulary.clip_checkpoint import EncoderUnavailable, find_checkpoint
def imports(file):
    path = Path(sys.argv[1], 'hub', file)
    path.parent.mkdir(parents=True)
    path.write_text('')
    try:
        find_checkpoint('ViTamin-S', 'datacomp1b')
    except EncoderUnavailable as error:
        print('torch' in sys.modules, error)
imports('models--bert/snapshots/abc/pytorch_model.bin')
imports('models--timm--ViTamin-S/snapshots/abc/pytorch_model.bin')''', tmp_path, HF_HOME=str(tmp_path),
                        HOME=str(tmp_path))
    missing = 'the CLIP weights ViTamin-S/datacomp1b are not on this machine'
    assert completed.stdout.splitlines() == [f'False {missing}', f'True {missing}'], completed.stderr


def test_the_network_is_used_only_for_downloads(tiny_clip_folder, tmp_path):
    """With a hub that never responds: a lookup does not contact it, and a download ends with a timeout."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        completed = run_python('''
import sys, time
from pathlib import Path
from lgseg_ros.vocabulary.clip_checkpoint import EncoderUnavailable, find_checkpoint
for download in (False, True):
    start = time.monotonic()
    try:
        find_checkpoint('ViT-B-16', 'openai', download=download)
    except EncoderUnavailable as error:
        print(error)
    if not download:
        print('torch' in sys.modules)
print(time.monotonic() - start < 20)
snapshot = Path(sys.argv[1], 'hub/models--timm--vit_base_patch16_clip_224.openai/snapshots/abc')
snapshot.mkdir(parents=True)
(snapshot / 'open_clip_model.safetensors').write_text('')
(snapshot.parents[1] / 'refs').mkdir()
(snapshot.parents[1] / 'refs/main').write_text('abc')
print(find_checkpoint('ViT-B-16', 'openai') == (snapshot / 'open_clip_model.safetensors', True))''', tmp_path,
                            HF_ENDPOINT=f'http://127.0.0.1:{server.getsockname()[1]}', HF_HOME=str(tmp_path),
                            HOME=str(tmp_path), HF_HUB_OFFLINE='0', NO_PROXY='127.0.0.1')
        first, imported, second, in_time, cached = completed.stdout.splitlines()
        assert first == 'the CLIP weights ViT-B-16/openai are not on this machine', completed.stderr
        assert imported == 'False'
        assert 'does not answer' in second and in_time == cached == 'True'
        server.settimeout(1)
        server.accept()[0].close()
        with pytest.raises(TimeoutError):   # one connection, by the download
            server.accept()


# --- the cache


def unit_vectors(count, width=4, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_folder_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
    monkeypatch.delenv('LGSEG_CACHE', raising=False)
    assert EmbeddingCache(SPACE, 4).path.parent == tmp_path / 'xdg' / 'lgseg' / 'text'
    monkeypatch.setenv('LGSEG_CACHE', str(tmp_path / 'mine'))
    assert EmbeddingCache(SPACE, 4).path.parent == tmp_path / 'mine' / 'text'
    path = EmbeddingCache(TextSpace('../../etc', 'x/y'), 4).path
    assert path.parent == tmp_path / 'mine' / 'text'


def test_phrases_added_by_another_process_are_found(tmp_path):
    cache, other = (EmbeddingCache(SPACE, 4, tmp_path) for _ in range(2))
    assert cache.find(['a']) == {}
    vectors = unit_vectors(2)
    other.add(['A', 'b_c'], vectors, 'the {}')
    assert np.allclose(cache.find(['b c', 'x'])['b c'], vectors[1])
    cache.add(['d'], unit_vectors(1, seed=1), 'the {}')
    assert list(other.templates) == ['a', 'b c', 'd']


def damage(path, kind):
    if kind == 'truncated':
        path.write_bytes(path.read_bytes()[:-80])
    elif kind == 'encrypted':   # by the flag in the archive
        data = bytearray(path.read_bytes())
        data[data.index(b'PK\x01\x02') + 8] ^= 1
        path.write_bytes(data)
    elif kind == 'noise':
        path.write_bytes(np.random.default_rng(0).bytes(3000))
    elif kind == 'other encoder':
        write_embeddings(path, Embeddings(['a'], unit_vectors(1), [''], TextSpace('other', 'tag')))
    elif kind == 'other width':
        write_embeddings(path, Embeddings(['a'], unit_vectors(1, 7), [''], SPACE))
    elif kind == 'pickle':
        np.savez(path, names=np.array(['a', None], object), embeddings=unit_vectors(2))
    elif kind == 'zeros':
        write_embeddings(path, Embeddings(['a'], np.zeros((1, 4), np.float32), [''], SPACE))


@pytest.mark.parametrize('kind', ['truncated', 'encrypted', 'noise', 'other encoder', 'other width', 'pickle', 'zeros'])
def test_damaged_and_foreign_caches_are_renamed(tmp_path, warnings, kind):
    cache = EmbeddingCache(SPACE, 4, tmp_path, warnings.append)
    cache.add(['a'], unit_vectors(1), '')
    damage(cache.path, kind)
    second = EmbeddingCache(SPACE, 4, tmp_path, warnings.append)
    assert second.find(['a']) == {}
    assert len(warnings) == 1 and 'set aside' in warnings[0]
    assert second.add(['b'], unit_vectors(1), '')
    assert list(EmbeddingCache(SPACE, 4, tmp_path).templates) == ['b']
    assert second.path.with_suffix('.set-aside').exists()


def test_a_temporarily_unreadable_cache_is_read_later(tmp_path, warnings):
    """As with too many open files: the file is intact, and its phrases are found by the next lookup."""
    cache = EmbeddingCache(SPACE, 4, tmp_path, warnings.append)
    cache.add(['a'], unit_vectors(1), '')
    second, limits = EmbeddingCache(SPACE, 4, tmp_path, warnings.append), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        assert second.find(['a']) == second.find(['a']) == {}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(warnings) == 1 and 'not read now' in warnings[0] and 'Too many open files' in warnings[0]
    assert list(second.find(['a'])) == ['a'] and not second.path.with_suffix('.set-aside').exists()


def test_a_temporarily_unreadable_cache_is_not_overwritten(tmp_path, warnings, monkeypatch):
    """As after a temporary disk error or lack of memory, followed by a new phrase."""
    EmbeddingCache(SPACE, 4, tmp_path).add(['a'], unit_vectors(1), '')
    second = EmbeddingCache(SPACE, 4, tmp_path, warnings.append)

    def fail(path):
        raise VocabularyError(path) from MemoryError()
    with monkeypatch.context() as patch:
        patch.setattr('lgseg_ros.vocabulary.embedding_cache.read_embeddings', fail)
        assert not second.add(['b'], unit_vectors(1), '') and list(second.find('ab')) == ['b']
    assert list(read_embeddings(second.path).names) == ['a'] and set(second.find('ab')) == {'a', 'b'}
    assert second.add(['c'], unit_vectors(1), '') and set(read_embeddings(second.path).names) == {'a', 'b', 'c'}


def test_a_cache_is_readable_by_every_user(tmp_path):
    mask = os.umask(0o077)   # a common setting for root
    try:
        cache = EmbeddingCache(SPACE, 4, tmp_path)
        cache.add(['a'], unit_vectors(1), '')
    finally:
        os.umask(mask)
    assert cache.path.stat().st_mode & 0o777 == 0o644


def test_an_unwritable_folder_gives_one_warning(tmp_path, warnings):
    (tmp_path / 'file').write_text('')
    cache = EmbeddingCache(SPACE, 4, tmp_path / 'file', warnings.append)
    for name in 'abc':
        assert not cache.add([name], unit_vectors(1), '')
    assert set(cache.find('abc')) == set('abc')
    assert len(warnings) == 1 and 'LGSEG_CACHE' in warnings[0]


def test_a_full_disk_keeps_the_old_cache(tmp_path, warnings):
    cache = EmbeddingCache(SPACE, 4, tmp_path, warnings.append)
    cache.add(['a'], unit_vectors(1), '')
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))   # maximum file size in bytes; writing more fails
    try:
        assert not cache.add(['b'], unit_vectors(1), '')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(warnings) == 1 and list(read_embeddings(cache.path).names) == ['a']
    assert [p.name for p in cache.path.parent.iterdir() if 'part' in p.name] == []
    assert set(cache.find('ab')) == set('ab')


def test_two_processes_can_write_at_once(tmp_path):
    code = '''
import sys
import numpy as np
from lgseg_ros.vocabulary.embedding_cache import EmbeddingCache
from lgseg_ros.vocabulary.text_space import TextSpace
for i in range(20):
    EmbeddingCache(TextSpace('some-model', 'some-tag'), 4, sys.argv[1]).add(
        [f'{sys.argv[2]} {i}'], np.eye(4)[:1], '')'''
    processes = [subprocess.Popen([sys.executable, '-c', code, str(tmp_path), name], cwd=ROOT)
                 for name in ('one', 'two')]
    assert [p.wait(60) for p in processes] == [0, 0]
    assert set(EmbeddingCache(SPACE, 4, tmp_path).templates) == {f'{n} {i}' for n in ('one', 'two') for i in range(20)}


def test_the_size_of_the_cache_is_limited(tmp_path):
    cache = EmbeddingCache(SPACE, 4, tmp_path)
    cache.add([f'old {i}' for i in range(MAX_ENTRIES)], unit_vectors(MAX_ENTRIES), '')
    cache.add(['new 1', 'new 2'], unit_vectors(2), '')
    names = list(read_embeddings(cache.path).names)
    assert len(names) == MAX_ENTRIES and names[0] == 'old 2' and names[-1] == 'new 2'


def test_files_with_false_sizes_are_refused(tmp_path):
    """Neither a false header nor a small compressed archive may make the reader allocate terabytes."""
    claim = str({'descr': '<f4', 'fortran_order': False, 'shape': (10**9, 512)})
    header = b"\x93NUMPY\x01\x00v\x00" + claim.ljust(117).encode() + b'\n'
    bomb, false_size = tmp_path / 'bomb.npz', tmp_path / 'false_size.npz'
    with zipfile.ZipFile(false_size, 'w') as archive:
        archive.writestr('embeddings.npy', header)
        archive.writestr('names.npy', header)
    with zipfile.ZipFile(bomb, 'w', zipfile.ZIP_DEFLATED) as archive:
        with archive.open('embeddings.npy', 'w', force_zip64=True) as file:
            for _ in range(300):
                file.write(bytes(2**20))
    start = time.monotonic()
    with pytest.raises(VocabularyError, match='false_size.npz.*cut off'):
        read_embeddings(false_size)
    with pytest.raises(VocabularyError, match='bomb.npz.*256 MiB'):
        read_embeddings(bomb)
    assert time.monotonic() - start < 5
