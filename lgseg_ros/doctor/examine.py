"""All checks in the order in which one thing needs another."""

import json
from typing import NamedTuple

from . import gpu_engines, libraries, machine, model, ros, shared_memory, transport
from .child import run_python
from .verdict import Verdict, fail, skip

GRAPH_S = 8.0   # how long to wait for a topic's publishers

PLAIN = {'python': machine.python, 'cores': machine.cores, 'libraries': libraries.required}
OF_ROS = {'ros': ros.distribution, 'interfaces': ros.interfaces, 'rmw': transport.rmw, 'transport': transport.profile}
AFTER = {'shared memory': shared_memory.room, 'left-overs': shared_memory.left_overs,
         'cv_bridge': libraries.cv_bridge, 'onnxruntime': libraries.onnxruntime,
         'gpu': machine.gpu, 'torch on CUDA': gpu_engines.torch_cuda, 'tensorrt': machine.tensorrt,
         'built engines': gpu_engines.built_engines,
         'weights': model.weights, 'self-test': model.self_tests, 'cache': model.cache,
         'torchvision': libraries.torchvision, 'text encoder': model.text_encoder}


class Finding(NamedTuple):
    """The verdict of a check, with the check's name; see `Verdict`."""

    name: str
    status: str
    finding: str
    cure: str


def examine(topics=()):
    """Yield the `Finding` of each check; a check that breaks becomes one itself."""
    for name, check in PLAIN.items():
        yield attempt(name, check)
    installation = ros.Ros()
    for name, check in OF_ROS.items():
        yield attempt(name, check, installation)
    yield from graph_findings(installation, topics)
    for name, check in AFTER.items():
        yield attempt(name, check)


def attempt(name, check, *arguments):
    """Run one check.  Returns its `Finding`, whatever happens."""
    try:
        return Finding(name, *check(*arguments))
    except ImportError as error:
        return Finding(name, *fail(f'cannot be checked: {error}', 'first cure what the line "libraries" says'))
    except Exception as error:  # one broken check must not hide what the others have to say
        return Finding(name, *fail(f'the check itself broke: {type(error).__name__}: {error}',
                                   'report it, with the output of lgseg doctor --json'))


def graph_findings(installation, topics):
    """Findings on the topics named, and on the clock."""
    names = [f'topic {topic}' for topic in topics] + ['clock']
    if not installation.works:
        return [Finding(name, *skip('ROS 2 is not usable here')) for name in names]
    outcome = run_python('-m', 'lgseg_ros.doctor.topics', str(GRAPH_S), *topics)
    if not outcome.worked:
        return [Finding('graph', *fail(f'cannot be seen: {outcome.reason}',
                                       'check the names given to --topic, and ROS_DOMAIN_ID'))]
    return [Finding(name, *Verdict(*verdict)) for name, verdict in json.loads(outcome.answer).items()]
