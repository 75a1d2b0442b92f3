"""`lgseg train`, `eval` and `export` end to end on small images."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from lgseg_ros.cli.main import main
from lgseg_ros.demo.street import CLASS_NAMES
from lgseg_ros.model.weights import load_weights
from lgseg_ros.training.run_directory import load_checkpoint, read_log
from lgseg_ros.vocabulary.compatibility import space_of_weights
from lgseg_ros.vocabulary.embedding_file import read_embeddings, write_embeddings
from lgseg_ros.vocabulary.text_space import TextSpace
from small_network import SMALL_NETWORK
from street_dataset import PHRASES, TEXT_DIM, write_dataset, write_text_embeddings

pytestmark = pytest.mark.usefixtures('one_torch_thread')

METRICS = {'miou', 'pixel_accuracy', 'frequency_weighted_iou', 'boundary_f1', 'expected_calibration_error',
           'unassigned_pixels', 'iou'}


def train_arguments(folder, out, **changes):
    options = {'data': folder / 'data', 'text-embeddings': folder / 'embeddings.npz', 'out': out,
               'backbone': SMALL_NETWORK.backbone, 'pretrained': 'none', 'crop': '64x96',
               'device': 'cpu', 'batch-size': 2, 'warmup-steps': 2, 'epochs': 2, 'lr': 0.005, **changes}
    pairs = [(f'--{name.replace("_", "-")}', str(value)) for name, value in options.items() if value is not None]
    return ['train', *(text for pair in pairs for text in pair)]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder with a data set, text embeddings, a trained run and its exported weights."""
    folder = tmp_path_factory.mktemp('cli')
    write_dataset(folder / 'data', train=4, val=2)
    write_text_embeddings(folder / 'embeddings.npz')
    monkey = pytest.MonkeyPatch()
    arguments = train_arguments(folder, folder / 'run')
    monkey.setattr(sys, 'argv', ['lgseg', *arguments])
    assert main(arguments) == 0
    monkey.undo()
    assert main(['export', '--run', str(folder / 'run'), '--name', 'tiny', '--out', str(folder / 'weights')]) == 0
    return folder


@pytest.fixture
def weights(trained):
    return str(trained / 'weights' / 'tiny.safetensors')


def test_train_records_how_a_run_was_made(trained):
    run = trained / 'run'
    origin = json.loads((run / 'run.json').read_text())
    assert origin['data'] == [str(trained / 'data')] and origin['text_embeddings'] == str(trained / 'embeddings.npz')
    assert origin['command'].startswith('lgseg train --data') and 'torch' in origin['versions']
    assert [record['epoch'] for record in read_log(run)] == [1, 2]
    state = load_checkpoint(run / 'checkpoint.pt')
    assert state['config']['epochs'] == 2 and state['model_config']['backbone'] == SMALL_NETWORK.backbone


def test_train_prints_a_table_and_resumes(trained, tmp_path, capsys):
    arguments = train_arguments(trained, tmp_path / 'run')
    assert main([*arguments, '--stop-epoch', '1']) == 0
    assert 'epoch 1 of 2' in capsys.readouterr().out
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert 'validation after epoch 2' in out and 'epoch 2 of 2' in out
    assert all(name in out for name in (*CLASS_NAMES, 'mIoU', 'boundary F1'))


def test_a_run_is_resumed_only_with_the_same_text_embeddings(trained, tmp_path, capsys):
    own = write_text_embeddings(tmp_path / 'own.npz')
    arguments = train_arguments(trained, tmp_path / 'run', text_embeddings=own)
    assert main([*arguments, '--stop-epoch', '1']) == 0
    text_embeddings = dict(np.load(own))
    np.savez(own, **{**text_embeddings, 'embeddings': text_embeddings['embeddings'][::-1]})
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert 'own.npz does not hold the text embeddings that' in error and 'another --out' in error
    assert main(train_arguments(trained, tmp_path / 'run')) == 0, 'the same content under another name'


def test_a_new_run_replaces_the_record_of_one_without_checkpoint(trained, tmp_path):
    """As after a run that ran out of memory: run.json exists, but no checkpoint."""
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run/run.json').write_text('{"command": "lgseg train --batch-size 64", "data": ["other"]}')
    assert main(train_arguments(trained, tmp_path / 'run', epochs=1)) == 0
    run = json.loads((tmp_path / 'run/run.json').read_text())
    assert '--batch-size 64' not in run['command'] and run['data'] == [str(trained / 'data')]


def test_train_options_reach_the_configuration(trained, tmp_path):
    extra = [
        '--no-image-to-text',
        '--blocks',
        '1',
        '--unseen',
        'car, tree',
        '--seed',
        '3',
        '--data',
        str(trained / 'data'),
        '--num-negatives',
        '5',
        '--copy-paste-prob',
        '0.25',
        '--no-prompt-augmentation',
        '--evaluate-every',
        '9',
        '--dataset-temperature',
        '0.3',
        '--image-cache',
        '0',
    ]
    arguments = train_arguments(trained, tmp_path / 'run', epochs=1)
    assert main([*arguments, *extra]) == 0
    state = load_checkpoint(tmp_path / 'run' / 'checkpoint.pt')
    assert {'image_to_text': False, 'text_to_image': True, 'blocks': 1}.items() <= state['model_config'].items()
    assert {'unseen': ('car', 'tree'), 'seed': 3, 'height': 64, 'width': 96, 'num_negatives': 5,
            'copy_paste_prob': 0.25, 'learning_rate': 0.005, 'prompt_augmentation': False, 'evaluate_every': 9,
            'dataset_temperature': 0.3, 'text_projection': 'learned'}.items() <= state['config'].items()
    assert [len(names) for names in state['classes']] == [9, 9]
    measured = read_log(tmp_path / 'run')[-1]['validation']['iou']
    assert set(measured) == set(CLASS_NAMES), 'all classes, including the unseen ones'


def test_train_starts_from_weights(trained, weights, tmp_path):
    """With a tiny learning rate the weights stay the same, whatever the options of the network."""
    arguments = train_arguments(trained, tmp_path / 'run', epochs=1, lr=1e-9, backbone='resnet18')
    assert main([*arguments, '--init', weights, '--blocks', '1']) == 0
    state = load_checkpoint(tmp_path / 'run' / 'checkpoint.pt')
    assert state['config']['init'] == 'tiny' and state['config']['pretrained'] is None
    assert state['model_config'] == load_weights(weights).card['model']
    assert json.loads((tmp_path / 'run' / 'run.json').read_text())['before'] == load_weights(weights).card['stages']
    trained = load_checkpoint(trained / 'run' / 'checkpoint.pt')['ema']
    for name in ('project.weight', 'fusion.1.to_text.query.weight', 'backbone.conv_stem.weight'):
        np.testing.assert_allclose(state['model'][name], trained[name], atol=1e-3)


def test_train_refuses_embeddings_of_another_text_encoder(trained, weights, tmp_path, capsys):
    np.savez(tmp_path / 'wide.npz', names=np.array(['road']), embeddings=np.ones((1, 48), np.float16))
    assert (
        main([*train_arguments(trained, tmp_path / 'run', text_embeddings=tmp_path / 'wide.npz'), '--init', weights])
        == 1
    )
    assert '48), but' in capsys.readouterr().err
    text_embeddings = read_embeddings(trained / 'embeddings.npz')
    other = replace(
        text_embeddings, vectors=np.roll(text_embeddings.vectors, 1, axis=1)
    )  # same width, different content
    write_embeddings(tmp_path / 'other.npz', replace(other, space=TextSpace('ViT-B-32', 'openai')))
    assert (
        main([*train_arguments(trained, tmp_path / 'run', text_embeddings=tmp_path / 'other.npz'), '--init', weights])
        == 1
    )
    assert 'is of the text encoder ViT-B-32/openai' in capsys.readouterr().err
    for command in (['eval', '--data', str(trained / 'data')], ['export', '--out', str(tmp_path)]):
        assert main([*command, '--run', str(trained / 'run'), '--text-embeddings', str(tmp_path / 'other.npz')]) == 1
        assert 'other.npz is of another text encoder than' in capsys.readouterr().err


@pytest.mark.parametrize('changes, message', [
    ({'data': 'nowhere'}, 'nowhere/dataset.yaml is missing'),
    ({'text-embeddings': 'nowhere.npz'}, 'nowhere.npz is not a file of text embeddings'),
    ({'crop': '90x128'}, '--crop is 90x128; give multiples of 32'), ({'lr': 0}, '--lr is 0.0'),
    ({'copy-paste-prob': 0.5, 'batch-size': 1}, '--copy-paste-prob is 0.5, but a batch of 1'),
    ({'image-cache': -1}, '--image-cache is -1'), ({'num-workers': 0}, '--num-workers is 0'),
    ({'text-projection': 'pca'}, '--text-projection is pca, but 33 text embeddings'),
    ({'backbone': 'resnet81'}, "'resnet81' is not a timm model"),
    ({'unseen': 'ship'}, 'has no class ship'),
    ({'val': 'nowhere'}, 'nowhere/dataset.yaml is missing'),
    ({'val-split': 'test', 'val': None, 'device': 'cuda:99'}, '--device is cuda'),
])
def test_invalid_train_options_are_refused_at_once(trained, tmp_path, changes, message, capsys):
    assert main(train_arguments(trained, tmp_path / 'run', **{'val': trained / 'data', **changes})) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()


def test_an_invalid_crop_is_refused(capsys):
    with pytest.raises(SystemExit) as error:
        main(['train', '--data', 'x', '--text-embeddings', 'y', '--out', 'z', '--crop', 'large'])
    assert error.value.code == 2 and "'large' is no size" in capsys.readouterr().err


def test_export_writes_weights_and_card(trained, weights):
    card = load_weights(weights).card
    assert card['name'] == 'tiny' and card['backbone'] == SMALL_NETWORK.backbone
    assert card['licence'] == 'Apache-2.0, procedural' and card['data'][0]['name'] == 'data'
    assert card['template'] == 'a photo of a X' and card['text_encoder'] == 'ViT-B-16 (OpenAI)'
    assert card['metrics']['epoch'] == 2 and set(card['metrics']) >= METRICS
    assert (card['epoch'], card['epochs'], card['seed']) == (2, 2, 0)
    assert card['parameters'] > 1e6 and 'torch' in card['versions']
    stage, = card['stages']
    assert (
        stage['command'].startswith('lgseg train --data data --text-embeddings embeddings.npz') and stage['hours'] >= 0
    )
    assert str(trained) not in json.dumps(card), 'the card must not contain folders of this machine'


def test_export_options_replace_a_missing_run_json(trained, tmp_path, capsys):
    """A run that was started from Python has no run.json."""
    (tmp_path / 'run').mkdir()
    for name in ('checkpoint.pt', 'log.jsonl'):
        (tmp_path / 'run' / name).write_bytes((trained / 'run' / name).read_bytes())
    assert main(['export', '--run', str(tmp_path / 'run'), '--out', str(tmp_path)]) == 1
    assert 'give --text-embeddings' in capsys.readouterr().err
    assert main(['export', '--run', str(tmp_path / 'run'), '--out', str(tmp_path),
                 '--text-embeddings', str(trained / 'embeddings.npz'), '--licence', 'CC0',
                 '--data', str(trained / 'data'), '--command', 'lgseg train', '--limits', 'night']) == 0
    card = json.loads((tmp_path / 'run.json').read_text())
    assert (card['licence'], card['stages'][0]['command'], card['data'][0]['name']) == ('CC0', 'lgseg train', 'data')
    assert card['limits'] == 'night'


def test_the_card_names_the_text_encoder_of_the_embeddings(trained, tmp_path):
    """The node embeds new phrases with the same encoder."""
    text_embeddings = read_embeddings(trained / 'embeddings.npz')
    space = TextSpace('ViT-L-14', 'laion', 'an image of a {}')
    write_embeddings(tmp_path / 'embeddings.npz', replace(text_embeddings, space=space))
    assert (
        main(
            [
                'export',
                '--run',
                str(trained / 'run'),
                '--text-embeddings',
                str(tmp_path / 'embeddings.npz'),
                '--out',
                str(tmp_path),
                '--name',
                'large',
            ]
        )
        == 0
    )
    assert space_of_weights(load_weights(tmp_path / 'large.safetensors')) == space


def test_a_baseline_is_evaluated_but_not_exported(trained, tmp_path, capsys):
    run = tmp_path / 'run'
    assert main([*train_arguments(trained, run, epochs=1), '--head', 'lseg']) == 0
    assert evaluate(tmp_path, '--run', run, '--data', trained / 'data')['run'] == 'run'
    assert main(['export', '--run', str(run), '--out', str(tmp_path / 'weights')]) == 1
    assert "the head 'lseg', a baseline" in capsys.readouterr().err and not (tmp_path / 'weights').exists()


def evaluate(tmp_path, *arguments):
    assert main(['eval', *map(str, arguments), '--json', str(tmp_path / 'new' / 'results.json')]) == 0
    return json.loads((tmp_path / 'new' / 'results.json').read_text())


def test_eval_of_run_weights_and_engine_agree(trained, weights, tmp_path, capsys):
    """The same network three times: in fp32 from the run, in fp16 from the weights, and with the engine of the node."""
    data = '--data', trained / 'data'
    run = evaluate(tmp_path, '--run', trained / 'run', *data)
    torch = evaluate(tmp_path, '--weights', weights, *data, '--engine', 'exact')
    shipped = evaluate(tmp_path, '--weights', weights, *data)
    assert 'mIoU' in capsys.readouterr().out
    assert {'images': 2, 'split': 'val', 'data': 'data', 'num_negatives': 0}.items() <= shipped.items()
    assert set(shipped) >= METRICS
    assert shipped['engine'] in ('onnxruntime', 'openvino')   # OpenVINO is selected if it is installed
    assert torch['engine'] == run['engine'] == 'exact' and torch['precision'] == 'fp32' == run['precision']
    assert shipped['precision'] in ('fp32', 'int8')
    assert run['pixel_accuracy'] == read_log(trained / 'run')[-1]['validation']['pixel_accuracy']
    for other in (torch, shipped):
        assert other['pixel_accuracy'] == pytest.approx(run['pixel_accuracy'], abs=0.5)
        assert other['miou'] == pytest.approx(run['miou'], abs=0.5)


def test_eval_with_other_prompts_and_negatives(trained, weights, tmp_path):
    data = '--weights', weights, '--data', trained / 'data'
    plain = evaluate(tmp_path, *data)
    renamed = evaluate(tmp_path, *data, '--prompts', 'road=street,building=house', '--num-negatives', 4, '--seed', 2)
    assert renamed['prompts'] == {'road': ['street'], 'building': ['house']}
    assert (renamed['num_negatives'], renamed['seed']) == (4, 2)
    assert set(renamed['iou']) == set(plain['iou']), (
        'results are named by the classes of the data set, whatever the prompts'
    )
    assert renamed['iou'] != plain['iou']


@pytest.mark.parametrize('arguments, message', [
    (['--prompts', 'car=carr'], "'carr' is not known (near: car"),
    (['--prompts', 'ship=car'], "cannot rename 'ship'"),
    (['--num-negatives', '100'], '--num-negatives is 100; give 0 to 5'),
    (['--max-inference-pixels', '0'], '--max-inference-pixels is 0'),
    (['--split', 'test'], 'holds no .png labels'),
    (['--engine', 'tensorrt'], 'that were asked for are measured'),
    (['--engine', 'onnxruntime', '--precision', 'fp16'], 'that were asked for are measured'),
])
def test_invalid_eval_options_are_refused(trained, weights, arguments, message, capsys):
    assert main(['eval', '--weights', weights, '--data', str(trained / 'data'), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_text_embeddings_of_another_width_are_reported(trained, tmp_path, capsys):
    vectors = np.eye(len(PHRASES), 2 * TEXT_DIM, dtype=np.float32)
    np.savez(tmp_path / 'wide.npz', names=np.array(list(PHRASES)), embeddings=vectors)
    for command in (['eval', '--data', str(trained / 'data')], ['export', '--out', str(tmp_path)]):
        assert main([*command, '--run', str(trained / 'run'), '--text-embeddings', str(tmp_path / 'wide.npz')]) == 1
        error = capsys.readouterr().err
        assert f'wide.npz holds text embeddings of width {2 * TEXT_DIM}' in error and 'the same text encoder' in error
