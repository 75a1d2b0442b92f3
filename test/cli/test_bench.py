"""lgseg bench: real engines on small images; what cannot run is listed; the statistics are correct."""

import json
import time

import pytest

from lgseg_ros.cli.main import main
from lgseg_ros.engines.onnxruntime_engine import OnnxRuntimeEngine
from lgseg_ros.engines.self_test import SelfTestError
from lgseg_ros.engines.timing import Times, summarize, time_in_turn
from lgseg_ros.utils import hardware

SMALL = ['--num-threads', '1', '--max-inference-pixels', '9216', '--iterations', '2', '--warmup-iterations', '1',
         '--sizes', '96x96']


def test_every_combination_is_timed_and_the_rest_is_listed(tmp_path, capsys):
    file = tmp_path / 'bench.json'
    assert main(['bench', *SMALL, '128x96', '--engines', 'onnxruntime', '--precisions', 'fp32', 'fp16',
                 '--num-classes', '2', '20', '--json', str(file)]) == 0
    result = json.loads(file.read_text())
    assert [row['name'] for row in result['results']] == [
        f'onnxruntime fp32, {size}, {count} classes' for size in ('96x96', '128x96') for count in (2, 20)]
    assert result['results'][0]['speed'] == 1 and all(row['median_ms'] > 0 for row in result['results'])
    assert result['not_available'] == [{'name': 'onnxruntime fp16', 'reason': 'ONNX Runtime runs fp32 and int8'}]
    assert (result['iterations'], result['warmup_iterations'], result['num_threads']) == (2, 1, 1)
    assert 'cores' in result['machine']
    test, = result['self_tests']
    assert test['name'] == 'onnxruntime fp32' and test['agreement'] >= 0.99 and test['ms'] > 0
    shown = capsys.readouterr().out
    assert 'self-test: onnxruntime fp32: passed: 100.00 % of the pixels agree' in shown
    assert 'not available: onnxruntime fp16' in shown and 'onnxruntime fp32, 128x96, 20 classes' in shown


@pytest.mark.parametrize('flags, description', [({'avx2', 'avx512f', 'avx512_vnni'}, 'Zen, AVX-512 VNNI, '),
                                         ({'avx2', 'fma'}, 'Zen, AVX2, '), ({'asimddp'}, 'Zen, ASIMD'),
                                         (set(), 'Zen, ')])
def test_a_machine_is_described_by_what_decides_its_speed(monkeypatch, flags, description):
    monkeypatch.setattr(hardware, 'cpu_info', lambda: ('Zen', flags))
    assert description in hardware.machine() and hardware.machine().endswith('cores')


def test_an_engine_whose_masks_are_wrong_is_not_timed(monkeypatch, capsys):
    def refuse(*_):
        raise SelfTestError("onnxruntime in fp32: 12.0 % of the self-test's pixels agree at 96x96 (99 % needed)")
    monkeypatch.setattr(OnnxRuntimeEngine, 'run', refuse)
    assert main(['bench', *SMALL, '--engines', 'onnxruntime', '--precisions', 'fp32']) == 1
    captured = capsys.readouterr()
    assert 'not available: onnxruntime fp32: onnxruntime in fp32: 12.0 %' in captured.out


def test_nothing_that_runs_is_an_error(capsys):
    assert main(['bench', *SMALL, '--engines', 'onnxruntime', '--precisions', 'fp16']) == 1
    assert 'none of these engines' in capsys.readouterr().err


@pytest.mark.parametrize('arguments, code, message', [
    (['--sizes', '480'], 2, "'480' is not a size"), (['--iterations', '0'], 1, '--iterations is 0'),
    (['--num-classes', '900'], 1, '--num-classes is 900')])
def test_bad_arguments_are_errors(arguments, code, message, capsys):
    try:
        found = main(['bench', '--engines', 'onnxruntime', '--precisions', 'fp32', *arguments])
    except SystemExit as stop:
        found = stop.code
    assert found == code and message in capsys.readouterr().err


def test_subjects_take_turns_and_warm_up_does_not_count():
    calls = []
    times = time_in_turn({'a': lambda n: calls.append(('a', n)), 'b': lambda n: calls.append(('b', n))}, 2, 1)
    assert calls == [(name, n) for n in range(3) for name in 'aabb'], 'the second of two calls is timed'
    assert all(len(t.wall) == len(t.cpu) == 2 for t in times.values())


def test_statistics():
    slow, fast = summarize({'slow': Times([20.0] * 9 + [40.0], [1.0] * 10), 'fast': Times([5.0] * 10, [2.0] * 10)})
    assert slow.as_json() == {'name': 'slow', 'median_ms': 20.0, 'p95_ms': 31.0, 'p99_ms': 38.2, 'cpu_ms': 1.0,
                              'fps': 50.0, 'speed': 1.0}
    assert fast.speed == 4.0 and fast.fps == 200.0
    asleep = time_in_turn({'sleep': lambda _: time.sleep(0.02)}, 3, 0)['sleep']
    assert min(asleep.wall) >= 20 and max(asleep.cpu) < 15   # waiting is no work
