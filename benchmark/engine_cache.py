r"""Does a compile cache ever change the masks?  Agreement of OpenVINO with ONNX Runtime in fp32, and self-test times.

Several precisions, numbers of threads and processes use one cache after and beside each other.  Each case is run with
the package's key, which gives every combination a folder of its own, and with the library's own key alone, as before:
one folder for all.  `refused`: the golden self-test did not pass, so the node would have used another engine.

    python benchmark/engine_cache.py --json benchmark/results/engine_cache.json \
        --markdown benchmark/results/engine_cache.md
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lgseg_ros.cli.json_output import add_json_option, write_json
from lgseg_ros.demo.street import StreetCamera
from lgseg_ros.engines import cache_key
from lgseg_ros.engines.onnxruntime_engine import OnnxRuntimeEngine
from lgseg_ros.engines.openvino_engine import OpenVinoEngine
from lgseg_ros.engines.preprocessing import Frame
from lgseg_ros.engines.selection import ENGINES, PRECISIONS, engine_class
from lgseg_ros.engines.self_test import SelfTestError
from lgseg_ros.model.weights import load_weights
from lgseg_ros.utils.hardware import has_half, has_int8_dot, machine
from lgseg_ros.vocabulary.vocabulary import Vocabulary, VocabularyState

# name: the steps (precision, threads) that use one cache in this order; the last one is judged.
ORDERS = {
    'fp32 first, then fp16': (('fp32', 0), ('fp16', 0)),
    'fp16 first, then fp32': (('fp16', 0), ('fp32', 0)),
    'fp32, INT8, then fp16': (('fp32', 0), ('int8', 0), ('fp16', 0)),
    'fp16, INT8, then fp32': (('fp16', 0), ('int8', 0), ('fp32', 0)),
    'fp32, fp16, then INT8': (('fp32', 0), ('fp16', 0), ('int8', 0)),
    '1 thread, then 2, fp32': (('fp32', 1), ('fp32', 2)),
    '4 threads, then 1, fp32': (('fp32', 4), ('fp32', 1)),
}
CHILD = '--child'   # (precision, own key, file to write): one of the processes that share a folder
ROUNDS = 5          # starts over which the time of a self-test is the median


def street() -> np.ndarray:
    """The frame, BGR uint8 [360, 480, 3]."""
    return StreetCamera(480, 360, seed=3).render(40)[0]


def use_library_key() -> None:
    """Let all graphs lie in one folder, where OpenVINO's own key alone tells them apart."""
    OpenVinoEngine._cache_name = lambda self, net: 'shared'


def mask_of(precision: str, num_threads: int, vocabulary: Vocabulary) -> np.ndarray:
    """The ids that OpenVINO gives.  Raises SelfTestError."""
    engine = OpenVinoEngine(load_weights(), num_threads, precision=precision)
    return engine.run([Frame(street(), 'bgr')], vocabulary)[0].ids


def camvid() -> Vocabulary:
    """The classes of the training."""
    return VocabularyState(load_weights().text_embeddings).replace([], 'camvid')


def agreement(ids: np.ndarray, expected: np.ndarray) -> str:
    """Percent of the pixels with the expected id."""
    return f'{100 * np.mean(ids == expected):.2f} %'


def agreement_of(precision: str, num_threads: int, expected: np.ndarray) -> str:
    """Percent of the pixels with the expected id, or that the engine was refused."""
    try:
        return agreement(mask_of(precision, num_threads, camvid()), expected)
    except SelfTestError as error:
        return f'refused: {error}'.partition(';')[0]


def in_order(steps: tuple[tuple[str, int], ...], expected: np.ndarray) -> str:
    """Run the steps in a new cache; what the last one gives."""
    missing = next((reason for precision, _ in steps if (reason := OpenVinoEngine.unavailable(precision))), None)
    if missing:
        return f'not here: {missing}'
    with new_cache():
        for precision, num_threads in steps[:-1]:
            agreement_of(precision, num_threads, expected)
        return agreement_of(*steps[-1], expected)


def new_cache() -> tempfile.TemporaryDirectory:
    """An empty user's cache until the block ends."""
    folder = tempfile.TemporaryDirectory(prefix='lgseg-cache-')
    os.environ['LGSEG_CACHE'] = folder.name
    return folder


def shared(own_key: bool, expected: np.ndarray) -> str:
    """Run two processes in fp32 and one in another precision that compile into one folder at once."""
    precisions = ['fp32', 'fp16' if has_half() else 'int8' if has_int8_dot() else 'fp32', 'fp32']
    with new_cache() as folder:
        files = [Path(folder) / f'{n}.npy' for n in range(len(precisions))]
        processes = [subprocess.Popen([sys.executable, __file__, CHILD, precision, str(own_key), str(file)],
                                      stdout=subprocess.PIPE, text=True)
                     for precision, file in zip(precisions, files, strict=True)]
        answers = [process.communicate()[0] for process in processes]
        shares = [agreement(np.load(file, allow_pickle=False), expected) if file.exists() else answer.strip()
                  for file, answer in zip(files, answers, strict=True)]
    return ', '.join(f'{precision} {share}' for precision, share in zip(precisions, shares, strict=False))


def child(precision: str, own_key: bool, file: str) -> int:
    """One of the processes that share a folder."""
    if not own_key:
        use_library_key()
    try:
        np.save(file, mask_of(precision, 0, camvid()))
    except SelfTestError as error:
        print(f'refused: {error}'.partition(';')[0])
    return 0


def carried(expected: np.ndarray) -> str:
    """A cache that was filled on a CPU with other instruction sets: its graphs are left unread."""
    with new_cache() as folder:
        name, features = cache_key.cpu_info()
        honest, cache_key.cpu_info = cache_key.cpu_info, lambda: (f'{name} of before', features - {'avx512_bf16'})
        try:
            agreement_of('fp32', 0, expected)
        finally:
            cache_key.cpu_info = honest
        answer = agreement_of('fp32', 0, expected)
        folders = len(list((Path(folder) / 'openvino').glob('fp32-*/')))
    return f'{answer}, compiled again ({folders} folders)'


def self_tests() -> list[dict[str, Any]]:
    """Agreement and median time of the self-test at the default size, of each engine and precision here."""
    weights, rows = load_weights(), []
    words, frame = VocabularyState(weights.text_embeddings).replace([], 'camvid'), Frame(street(), 'bgr')
    for name in ENGINES:
        for precision in PRECISIONS[1:]:
            if engine_class(name).unavailable(precision) is not None:
                continue
            results = []
            try:
                for _ in range(ROUNDS):
                    engine = engine_class(name)(weights, 0, precision=precision)
                    engine.warm_up(words)
                    results.append(engine.self_test.worst)
                    began = time.perf_counter()
                    for _ in range(3):
                        engine.run([frame], words)
                    frame_ms = (time.perf_counter() - began) / 3 * 1e3
                    engine.close()
            except Exception as error:   # of the library's own kind
                print(f'not available: {name} {precision}: {error}')
                continue
            rows.append({'engine': name, 'precision': precision, 'size': f'{results[0].size[1]}x{results[0].size[0]}',
                         'agreement': round(min(result.agreement for result in results), 5),
                         'confidence_error': round(max(result.confidence_error for result in results), 5),
                         'vocabularies': min(result.num_vocabularies for result in results),
                         'ms': round(float(np.median([result.milliseconds for result in results])), 1),
                         'frame_480x360_ms': round(frame_ms, 1)})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def table(result: dict[str, Any]) -> str:
    """Both tables in Markdown."""
    lines = ['| one cache folder, used by | own keys | the library\'s key alone |', '| --- | --- | --- |']
    lines += [f'| {row["case"]} | {row["own_key"]} | {row["library_key"]} |' for row in result['caches']]
    lines += ['', '| self-test of | network size | pixels that agree | confidence error | time | one frame, 480x360 |',
              '| --- | --- | --- | --- | --- | --- |']
    lines += [f'| {row["engine"]} {row["precision"]} | {row["size"]} | {100 * row["agreement"]:.2f} % | '
              f'{row["confidence_error"]:.4f} | {row["ms"]:.0f} ms | {row["frame_480x360_ms"]:.0f} ms |'
              for row in result['self_tests']]
    return '\n'.join(lines) + '\n'


def measure() -> list[dict[str, str]]:
    """Every case, with the package's key and with the library's."""
    weights = load_weights()
    expected = OnnxRuntimeEngine(weights, precision='fp32').run([Frame(street(), 'bgr')], camvid())[0].ids
    rows = {name: {'case': name, 'own_key': in_order(steps, expected)} for name, steps in ORDERS.items()}
    both = 'two processes in fp32 and one in fp16 at once'
    rows[both] = {'case': both, 'own_key': shared(True, expected), 'library_key': shared(False, expected)}
    moved = 'a folder carried from another CPU, fp32'
    rows[moved] = {'case': moved, 'own_key': carried(expected), 'library_key': 'not measured: one CPU here'}
    honest = OpenVinoEngine._cache_name
    use_library_key()
    for name, steps in ORDERS.items():
        rows[name]['library_key'] = in_order(steps, expected)
    OpenVinoEngine._cache_name = honest
    for row in rows.values():
        print(json.dumps(row), flush=True)
    return list(rows.values())


def main() -> int:
    """Measure, print, write JSON and Markdown."""
    if sys.argv[1:2] == [CHILD]:
        return child(sys.argv[2], sys.argv[3] == 'True', sys.argv[4])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--markdown', metavar='FILE', help='write the tables there')
    add_json_option(parser)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    import openvino
    with new_cache():
        tests = self_tests()
    result = {'benchmark': 'engine_cache', 'machine': machine(), 'openvino': openvino.get_version(),
              'weights_sha256': load_weights().sha256, 'caches': measure(), 'self_tests': tests}
    print(table(result))
    if arguments.markdown:
        Path(arguments.markdown).write_text(table(result))
    write_json(arguments.json, result)
    return 0


if __name__ == '__main__':
    sys.exit(main())
