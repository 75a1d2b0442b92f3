"""`lgseg embed`: phrases are embedded, exported, imported, checked and listed; with a real, very small CLIP."""

import json
import shutil

import numpy as np
import pytest

from lgseg_ros.cli.main import main
from lgseg_ros.model.weights import load_weights
from lgseg_ros.vocabulary.clip_checkpoint import quickgelu_variant
from lgseg_ros.vocabulary.embedding_file import Embeddings, read_embeddings, write_embeddings
from lgseg_ros.vocabulary.text_source import TextSource
from lgseg_ros.vocabulary.text_space import TextSpace
from tiny_clip import CLASS_NAMES, WITHOUT_CLIP, run_python


@pytest.fixture
def embed(tiny_clip_weights):
    """A function that runs `lgseg embed` with the small weights and returns the exit code."""
    return lambda *arguments: main(['embed', '--weights', str(tiny_clip_weights.path), *map(str, arguments)])


def cached(tiny_clip_weights):
    return TextSource(tiny_clip_weights).cache.templates


def test_phrases_are_added_to_the_cache(embed, tiny_clip_weights, tmp_path, capsys):
    (tmp_path / 'phrases.txt').write_text('# for the yard\nreach_truck   # lifts\n\nvehicle=Tugger|car\n')
    assert embed('forklift', '--from', tmp_path / 'phrases.txt') == 0
    assert cached(tiny_clip_weights) == dict.fromkeys(['forklift', 'reach truck', 'tugger', 'car'], 'a photo of a {}')
    out = capsys.readouterr().out
    assert '4 phrases in' in out and '1 of them (car)' in out


def test_phrases_are_imported_on_a_machine_without_clip(embed, tiny_clip_weights, tmp_path):
    file, robot = tmp_path / 'phrases.npz', tmp_path / 'robot'
    assert embed('forklift', 'pallet', '--out', file) == 0
    assert cached(tiny_clip_weights) == {}
    encoded = TextSource(tiny_clip_weights).lookup(['forklift', 'pallet'])   # by the text encoder
    completed = run_python(WITHOUT_CLIP + '''
from lgseg_ros.cli.main import main
assert main(['embed', '--weights', sys.argv[1], '--import', sys.argv[2]]) == 0
from lgseg_ros.model.weights import load_weights
from lgseg_ros.vocabulary.text_source import TextSource
print(TextSource(load_weights(sys.argv[1])).lookup(["forklift", "pallet"]).tobytes().hex())
main(['embed', '--weights', sys.argv[1], 'crate'])''', tiny_clip_weights.path, file, LGSEG_CACHE=str(robot))
    imported = np.frombuffer(bytes.fromhex(completed.stdout.splitlines()[-1]), np.float32).reshape(2, 8)
    assert np.allclose(imported, encoded, atol=1e-6)
    assert 'lgseg embed: open_clip is not installed here (pip install open_clip_torch)' in completed.stderr


def test_templates_change_and_average_the_vectors(embed, tmp_path):
    (tmp_path / 'two.txt').write_text('# two\na photo of a {}\nthe {} outside\n')
    template_options = {
        'plain': (),
        'one': ('--template', 'the {} outside'),
        'two': ('--templates', tmp_path / 'two.txt'),
        'many': ('--templates', 'ensemble'),
    }
    files = {}
    for name, options in template_options.items():
        assert embed('forklift', '--out', tmp_path / f'{name}.npz', *options) == 0
        files[name] = read_embeddings(tmp_path / f'{name}.npz')
    vectors = {name: file.vectors[0] for name, file in files.items()}
    mean = vectors['plain'] + vectors['one']
    assert np.allclose(vectors['two'], mean / np.linalg.norm(mean), atol=1e-6)
    assert vectors['plain'] @ vectors['one'] < 0.9999
    assert all(np.linalg.norm(v) == pytest.approx(1, abs=1e-6) for v in vectors.values())
    descriptions = [file.templates[0] for file in files.values()]
    assert descriptions == ['a photo of a {}', 'the {} outside', '2 templates', '8 templates']
    assert files['one'].space.template == 'the {} outside', 'weights trained with it keep this template'


def test_list_prints_the_source_of_each_phrase(embed, tiny_clip_weights, capsys, monkeypatch):
    embed('forklift')
    capsys.readouterr()
    assert embed('--list', '--json') == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed['phrases'] == sorted(CLASS_NAMES) and listed['cache']['phrases'] == {'forklift': 'a photo of a {}'}
    assert listed['text_encoder']['model'] == 'tiny' and listed['text_encoder']['available']
    monkeypatch.setenv('LGSEG_CLIP_WEIGHTS', 'missing.safetensors')
    assert embed('--list') == 0
    assert 'refused, because the CLIP weights file missing.safetensors does not exist' in capsys.readouterr().out


@pytest.mark.parametrize('arguments, reason', [
    ((), 'give phrases'),
    (('forklift', '--list'), 'give phrases'),
    (('forklift', '--model', 'ViT-B-32', '--pretrained', 'openai'), 'makes other vectors'),
    (('forklift', '--template', 'a photo'), 'needs {} once'),
    (('a=|b',), 'empty name or phrase'),
    (('--from', 'no-such-file'), 'no-such-file'),
    (('--import', 'no-such-file.npz'), 'is not a file of text embeddings'),
    (('forklift', '--out', '/dev/null/x.npz'), '/dev/null'),
])
def test_embed_errors_give_the_reason(embed, tiny_clip_weights, capsys, arguments, reason):
    assert embed(*arguments) == 1
    assert reason in capsys.readouterr().err
    assert cached(tiny_clip_weights) == {}


def test_a_checkpoint_of_other_weights_is_refused(embed, tiny_clip_weights, tiny_clip_folder, capsys):
    assert embed('forklift', '--pretrained', tiny_clip_folder / 'other.safetensors') == 1
    assert 'does not match small.safetensors' in capsys.readouterr().err
    assert embed('forklift', '--pretrained', tiny_clip_folder / 'right.safetensors') == 0


def test_imported_vectors_are_compared_with_those_of_the_weights(embed, tiny_clip_weights, tiny_clip_folder, tmp_path,
                                                                 capsys):
    """A file that names no encoder is accepted if known phrases agree. A correct name alone is not sufficient."""

    def exported(checkpoint, space=None):
        path = tmp_path / 'embeddings.npz'
        assert main(['embed', *CLASS_NAMES[:5], 'forklift', '--out', str(path), '--model',
                     str(tiny_clip_folder / 'tiny.json'), '--pretrained', str(tiny_clip_folder / checkpoint)]) == 0
        stored = read_embeddings(path)
        if space:
            write_embeddings(path, Embeddings(stored.names, stored.vectors, stored.templates, space))
        else:
            np.savez(path, names=stored.names, embeddings=stored.vectors.astype(np.float16))
        return path

    assert embed('--import', exported('other.safetensors')) == 1
    assert embed('--import', exported('other.safetensors', TextSource(tiny_clip_weights).space)) == 1
    assert capsys.readouterr().err.count('does not match small.safetensors') == 2
    assert embed('--import', exported('right.safetensors', TextSpace('tiny', 'another'))) == 1
    assert 'is of the text encoder tiny/another' in capsys.readouterr().err
    assert cached(tiny_clip_weights) == {}
    assert embed('--import', exported('right.safetensors')) == 0
    assert 'forklift' in cached(tiny_clip_weights)


def test_embeddings_for_training_contain_encoder_and_template(tiny_clip_folder, tmp_path, capsys):
    options = ['embed', 'forklift', '--out', str(tmp_path / 'embeddings.npz'),
               '--model', str(tiny_clip_folder / 'tiny.json')]
    assert main([*options, '--pretrained', str(tiny_clip_folder / 'right.safetensors'), '--template', 'the {}']) == 0
    space = read_embeddings(tmp_path / 'embeddings.npz').space
    assert space.model == 'tiny' and space.template == 'the {}'
    assert space.pretrained.startswith('right.safetensors@sha256:') and '/' not in space.pretrained
    assert 'quick' not in capsys.readouterr().err
    assert main(options) == 1
    assert 'need --pretrained' in capsys.readouterr().err


def test_models_with_a_quick_gelu_variant(tiny_clip_folder):
    assert quickgelu_variant('ViT-B-16') == 'ViT-B-16-quickgelu' and quickgelu_variant('ViT-B-16-SigLIP') is None


def test_a_file_of_an_unknown_encoder_is_refused(embed, tmp_path, capsys):
    np.savez(tmp_path / 'embeddings.npz', names=['forklift'], embeddings=np.ones((1, 16), np.float32))
    assert embed('--import', tmp_path / 'embeddings.npz') == 1
    assert 'its text encoder is unknown' in capsys.readouterr().err


def test_an_unwritable_cache_is_an_error(embed, tmp_path, monkeypatch, capsys):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('LGSEG_CACHE', str(tmp_path / 'file'))
    assert embed('forklift') == 1
    assert 'LGSEG_CACHE names another folder' in capsys.readouterr().err


def test_clip_vectors_match_the_shipped_weights(shared, weights, tmp_path, monkeypatch, capsys):
    """350 CLIP vectors in a file that does not name the encoder. Vectors assigned to other names are refused."""
    monkeypatch.setenv('LGSEG_CACHE', str(tmp_path))
    source = tmp_path / 'real.npz'
    shutil.copy(shared / 'text' / 'clip_vit_b16_bank.npz', source)
    assert main(['embed', '--import', str(source)]) == 0
    assert len(cached(load_weights())) == 350
    stored = read_embeddings(source)
    np.savez(source, names=stored.names, embeddings=np.roll(stored.vectors, 1, axis=0))
    assert main(['embed', '--import', str(source)]) == 1
    assert 'does not match' in capsys.readouterr().err
