"""The engine cache with a small build function: it is the same for TensorRT's engines, which take minutes."""

import json
import logging
import subprocess
import sys
import time

import pytest

from lgseg_ros.engines.engine_cache import (
    DamagedEngineError,
    EngineIdentity,
    load_or_build,
    read_engine,
    rejection_reason,
)

SAMPLE = EngineIdentity('lite0', 'ab' * 32, 1, 'TensorRT 10.3.0', 'NVIDIA Orin (nvgpu)', '8.7', 'fp16', 172800)
ENGINE = b'\x00engine\n' * 1000


class Builder:
    """Counts its builds."""

    def __init__(self, content=ENGINE):
        self.content, self.builds = content, 0

    def __call__(self):
        self.builds += 1
        return self.content, {'seconds': 1.5}


def test_built_once_then_read(tmp_path):
    build = Builder()
    first, second = (load_or_build(SAMPLE, build, tmp_path) for _ in range(2))
    assert build.builds == 1 and first == second
    assert second.engine == ENGINE and second.notes == {'seconds': 1.5} and second.identity == SAMPLE._asdict()
    path, = tmp_path.glob('*.engine')
    assert path.name == SAMPLE.file_name == 'lite0-abababababab-fp16-172800-nvidia-orin-nvgpu.engine'
    load_or_build(SAMPLE, build, tmp_path, force=True)
    assert build.builds == 2


@pytest.mark.parametrize('change', [{'runtime': 'TensorRT 10.9.0'}, {'network_format': 2},
                                    {'compute_capability': '8.9'}, {'multiprocessors': 8},
                                    {'weights_sha256': 'ab' * 31 + 'cd'}])
def test_a_stale_engine_is_built_again_in_its_place(tmp_path, caplog, change):
    load_or_build(SAMPLE, Builder(b'old'), tmp_path)
    now, build = SAMPLE._replace(**change), Builder(b'new')
    name, = change
    assert f'the engine is stale: {name} was' in rejection_reason(tmp_path / now.file_name, now)
    assert load_or_build(now, build, tmp_path).engine == b'new' and build.builds == 1
    assert 'stale' in caplog.text and 'built again' in caplog.text
    assert len(list(tmp_path.glob('*.engine'))) == 1


@pytest.mark.parametrize('change', [{'precision': 'fp32'}, {'max_inference_pixels': 100}, {'gpu': 'NVIDIA H100'},
                                    {'weights': 'other'}, {'weights_sha256': 'cd' * 32}])
def test_engines_that_may_be_in_use_side_by_side_are_kept_apart(tmp_path, change):
    load_or_build(SAMPLE, Builder(), tmp_path)
    load_or_build(SAMPLE._replace(**change), Builder(b'other'), tmp_path)
    assert load_or_build(SAMPLE, Builder(b'never'), tmp_path).engine == ENGINE


DAMAGES = {'empty': lambda data: b'', 'cut': lambda data: data[:len(data) // 2], 'no header': lambda data: ENGINE,
           'one bit': lambda data: data[:-1] + bytes([data[-1] ^ 1]), 'not JSON': lambda data: b'{' + data,
           'another JSON': lambda data: b'[1]\n' + data, 'no end': lambda data: b'x' * 200_000}


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_engine_is_built_again(tmp_path, caplog, damage):
    build = Builder()
    load_or_build(SAMPLE, build, tmp_path)
    path = tmp_path / SAMPLE.file_name
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(DamagedEngineError, match='engine'):
        read_engine(path)
    assert load_or_build(SAMPLE, build, tmp_path).engine == ENGINE and build.builds == 2
    assert str(path) in caplog.text
    assert read_engine(path).engine == ENGINE


def test_a_failed_build_leaves_nothing_and_does_not_hold_the_lock(tmp_path):
    def fail():
        raise RuntimeError('no kernel for this layer')
    with pytest.raises(RuntimeError, match='no kernel'):
        load_or_build(SAMPLE, fail, tmp_path)
    assert not list(tmp_path.glob('*.engine')) and not list(tmp_path.glob('.*'))
    assert load_or_build(SAMPLE, Builder(), tmp_path).engine == ENGINE


def test_a_folder_that_cannot_be_written_costs_the_cache_only(tmp_path, caplog):
    blocked = tmp_path / 'file'
    blocked.touch()
    assert load_or_build(SAMPLE, Builder(), blocked / 'engines').engine == ENGINE
    assert 'cannot be written' in caplog.text and 'LGSEG_CACHE' in caplog.text


PROCESS = '''
import json, logging, sys, time
from pathlib import Path
from lgseg_ros.engines.engine_cache import EngineIdentity, load_or_build
logging.basicConfig(level=logging.WARNING)
folder, seconds = Path(sys.argv[1]), float(sys.argv[2])

def build():
    (folder / f'building-{sys.argv[3]}').touch()
    time.sleep(seconds)
    return sys.argv[3].encode(), {}

print(load_or_build(EngineIdentity(*json.loads(sys.argv[4])), build, folder).engine.decode())
'''


def start(folder, seconds, name):
    return subprocess.Popen([sys.executable, '-c', PROCESS, str(folder), str(seconds), name, json.dumps(SAMPLE)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path, seconds=20):
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.02)


def test_of_two_processes_one_builds_and_one_waits(tmp_path):
    first = start(tmp_path, 2.0, 'first')
    wait_for(tmp_path / 'building-first')
    second = start(tmp_path, 0.0, 'second')
    answers = [process.communicate(timeout=30) for process in (first, second)]
    assert [out.strip() for out, _ in answers] == ['first', 'first']
    assert 'another process is building' in answers[1][1]
    assert not (tmp_path / 'building-second').exists()


def test_a_builder_that_is_killed_does_not_block_the_next(tmp_path):
    killed = start(tmp_path, 60.0, 'killed')
    wait_for(tmp_path / 'building-killed')
    killed.kill()
    killed.wait()
    began = time.monotonic()
    assert load_or_build(SAMPLE, Builder(), tmp_path).engine == ENGINE
    assert time.monotonic() - began < 5


def test_reading_the_header_is_enough_to_know(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    assert rejection_reason(tmp_path / SAMPLE.file_name, SAMPLE) == 'no engine is built yet'
    load_or_build(SAMPLE, Builder(), tmp_path)
    assert rejection_reason(tmp_path / SAMPLE.file_name, SAMPLE) is None and not caplog.text


def test_the_doctor_counts_engines_and_names_the_bad_ones(tmp_path, monkeypatch):
    from lgseg_ros.doctor.gpu_engines import built_engines
    from lgseg_ros.engines.tensorrt_network import NETWORK_FORMAT
    monkeypatch.setenv('LGSEG_CACHE', str(tmp_path))
    assert built_engines().status == 'skip'
    good = SAMPLE._replace(network_format=NETWORK_FORMAT)
    stale = SAMPLE._replace(network_format=NETWORK_FORMAT - 1, precision='fp32')
    load_or_build(good, Builder())
    assert built_engines().status == 'ok' and built_engines().finding.startswith('1, 0.0 MB')
    load_or_build(stale, Builder())
    result = built_engines()
    assert result.status == 'warn' and stale.file_name in result.finding and good.file_name not in result.finding
    (tmp_path / 'engines' / good.file_name).write_bytes(b'torn')
    assert good.file_name in built_engines().finding and 'lgseg build-engine' in result.hint
