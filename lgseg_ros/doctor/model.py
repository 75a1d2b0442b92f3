"""Checks of weights, text encoder and cache folder."""

import json
import os
import tempfile

from ..utils.paths import cache_folder
from ..utils.subprocesses import run_code
from .check_result import CheckResult, fail, ok, skip, warn

# Loading the engine checks that the ONNX file is complete and was exported from these weights.
LOAD = """
import sys
from lgseg_ros.engines.onnxruntime_engine import OnnxRuntimeEngine
from lgseg_ros.model.weights import load_weights
weights = load_weights(sys.argv[1])
for precision in ('fp32', 'auto'):
    OnnxRuntimeEngine(weights, num_threads=1, precision=precision)
print(f'{len(weights.text_embeddings)} phrases')
"""
# Every engine that works here, in each precision, on its self-test at the default image size.
SELF_TESTS = '''
import json, sys
from lgseg_ros.engines.selection import run_self_tests
from lgseg_ros.model.weights import load_weights
print(json.dumps(run_self_tests(load_weights(sys.argv[1]))))
'''
FIND_ENCODER = '''
import sys
from lgseg_ros.model.weights import load_weights
from lgseg_ros.vocabulary.clip_checkpoint import EncoderUnavailable, find_checkpoint, user_checkpoint
from lgseg_ros.vocabulary.text_space import read_space
space = read_space(load_weights(sys.argv[1]).card['text_encoder'])
try:
    print(f'{space} from {find_checkpoint(space.model, space.pretrained, user_checkpoint())[0]}')
except EncoderUnavailable as error:
    sys.exit(str(error))
'''


def weights() -> CheckResult:
    """Check whether all shipped weights can be read, and whether their ONNX files belong to them."""
    from ..model.weights import DEFAULT_WEIGHTS, shipped_weights  # here: these need numpy, which may be missing
    names = shipped_weights()
    if DEFAULT_WEIGHTS not in names:
        return fail(f'{DEFAULT_WEIGHTS}, the default, is not among the shipped ones ({", ".join(names) or "none"})',
                    'install the package again, or in a clone: git checkout weights')
    found: list[str] = []
    for name in names:
        result = run_code(LOAD, name)
        if not result.succeeded:
            return fail(f'{name}: {result.reason}', 'git checkout weights, or install the package again; if it was '
                        f'exported by you: lgseg export --weights {name}')
        found.append(f'{name} ({result.answer})')
    return ok(f'complete, each with its ONNX file: {", ".join(found)}')


def self_tests() -> CheckResult:
    """Check whether every engine that works here gives the right masks, and how long its self-test takes."""
    from ..model.weights import DEFAULT_WEIGHTS
    result = run_code(SELF_TESTS, DEFAULT_WEIGHTS)
    if not result.succeeded:
        return fail(f'cannot be run: {result.reason}', f'lgseg export --weights {DEFAULT_WEIGHTS}')
    found = json.loads(result.answer)
    if not found:
        return skip('no engine can be run here')
    text = '; '.join(f'{label}: {answer["text"]}' for label, answer in found.items())
    failed = [label for label, answer in found.items() if answer['state'] == 'failed']
    if failed and len(failed) == len(found):
        return fail(text, 'no engine gives the right masks: report it, with the output of lgseg doctor --json')
    if failed:
        return warn(text, f'the node uses another engine than {" and ".join(failed)}; report it, with the output of '
                    'lgseg doctor --json')
    if any(answer['state'] == 'not tested' for answer in found.values()):
        return warn(text, f'lgseg export --weights {DEFAULT_WEIGHTS}')
    return ok(text)


def text_encoder() -> CheckResult:
    """Check whether phrases that the weights do not know can be embedded on this machine."""
    from ..model.weights import DEFAULT_WEIGHTS
    result = run_code(FIND_ENCODER, DEFAULT_WEIGHTS)
    if result.succeeded:
        return ok(result.answer)
    return skip(f'{result.reason}; without it, only the phrases in the weights and in the cache can be used',
                'lgseg embed --help: embed phrases on another machine, or here; in a clone: '
                'scripts/setup.sh --with train')


def cache() -> CheckResult:
    """Check whether the cache folder of built engines and text embeddings can be written."""
    folder = cache_folder()
    if os.path.lexists(folder) and not folder.is_dir():
        return fail(f'{folder} is not a folder', f'remove it: rm {folder}')
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return fail(f'{folder} cannot be written ({error.strerror}): engines are built at every start',
                    'export LGSEG_CACHE=/a/folder/that/you/own')
    size = sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) if folder.is_dir() else 0
    return ok(f'{folder} is writable' + (f', {size / 1e6:.1f} MB in use' if size else ', empty'))
