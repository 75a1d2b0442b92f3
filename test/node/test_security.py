"""The SROS 2 policy names exactly what the running node uses; the source runs nothing that a file brings."""

import ast
import os
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
import rclpy

from ros_graph import NodeProcess, wait_until

ROOT = Path(__file__).resolve().parents[2]
POLICY = ROOT / 'config' / 'security' / 'policy.xml'
LOOKS = {('topic', 'publish'): 'get_publisher_names_and_types_by_node',
         ('topic', 'subscribe'): 'get_subscriber_names_and_types_by_node',
         ('service', 'reply'): 'get_service_names_and_types_by_node',
         ('service', 'request'): 'get_client_names_and_types_by_node'}
# Between them, every topic there is.
CONFIGURATIONS = [(), ('image_transport:=compressed', 'use_sim_time:=true', 'bond_heartbeat_period:=0.1')]
NOT_EVERYWHERE = {'/lgseg/get_type_description'}                         # Humble's nodes have none


# --- the policy


def policy_names():
    """{(kind, role): fully qualified names} that the policy allows the node."""
    profile = ElementTree.parse(POLICY).getroot().find("enclaves/enclave[@path='/lgseg']/profiles/profile")
    assert (profile.get('ns'), profile.get('node')) == ('/', 'lgseg')
    names = {key: set() for key in LOOKS}
    for group in profile:
        (role, rule), = group.attrib.items()
        assert rule == 'ALLOW'
        for entry in group:
            assert entry.tag + 's' == group.tag and entry.text.strip() == entry.text
            names[entry.tag, role].add(resolved(entry.text))
    return names


def resolved(name):
    """A policy's name as SROS 2 reads it for /lgseg."""
    return '/lgseg' + name[1:] if name.startswith('~') else name if name.startswith('/') else f'/{name}'


def graph_names(observer):
    """{(kind, role): names} of the node /lgseg on the graph now; empty before it is known."""
    try:
        return {key: {name for name, _ in getattr(observer, look)('lgseg', '/')} for key, look in LOOKS.items()}
    except rclpy.node.NodeNameNonExistentError:
        return {key: set() for key in LOOKS}


def settled(look, seconds=1.5):
    """What `look` returns once it has not changed for a while: the graph becomes known bit by bit."""
    found, since = look(), time.monotonic()
    while time.monotonic() - since < seconds:
        time.sleep(0.1)
        if (now := look()) != found:
            found, since = now, time.monotonic()
    return found


@pytest.fixture(scope='module')
def node_names():
    """The names of the real, active node, in all configurations together."""
    context = rclpy.Context()
    rclpy.init(context=context)
    observer = rclpy.create_node('observer', context=context)
    names = {key: set() for key in LOOKS}
    try:
        for parameters in CONFIGURATIONS:
            wait_until(lambda: 'lgseg' not in observer.get_node_names(), 'the node before to leave')
            with NodeProcess('num_threads:=1', *parameters) as process:
                wait_until(lambda: 'activated; ' in process.log or process.process.poll() is not None,
                           'the node to start')
                assert process.process.poll() is None, process.log
                wait_until(lambda: graph_names(observer)['topic', 'subscribe'], 'its topics')
                for key, found in settled(lambda: graph_names(observer)).items():
                    names[key] |= found
                process.end()
    finally:
        observer.destroy_node()
        rclpy.try_shutdown(context=context)
    return names


@pytest.mark.parametrize('key', LOOKS, ids='-'.join)
def test_the_policy_names_all_that_the_node_uses(node_names, key):
    missing = node_names[key] - policy_names()[key]
    assert missing == set(), f'add to {POLICY.name}: the node has it, the policy denies it'


@pytest.mark.parametrize('key', LOOKS, ids='-'.join)
def test_the_policy_allows_nothing_else(node_names, key):
    spare = policy_names()[key] - node_names[key] - NOT_EVERYWHERE
    assert spare == set(), f'remove from {POLICY.name}: nothing uses it'


def test_the_policy_is_of_the_present_format():
    root = ElementTree.parse(POLICY).getroot()
    assert (root.tag, root.get('version')) == ('policy', '0.2.0')


def test_the_policy_is_installed():
    for folder in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        share = Path(folder) / 'share' / 'lgseg_ros'
        if (share / 'launch').is_dir():
            assert (share / 'config' / 'security' / 'policy.xml').is_file(), 'build again: scripts/setup.sh'
            return
    pytest.skip('lgseg_ros is not built by colcon (scripts/setup.sh)')


# --- the source

UNSAFE_IMPORTS = {'pickle', 'cPickle', 'dill', 'cloudpickle', 'marshal', 'shelve', 'joblib'}
UNSAFE_CALLS = {'eval', 'exec', 'os.system', 'os.popen', 'yaml.load', 'yaml.load_all', 'yaml.full_load',
                'yaml.unsafe_load', 'torch.hub.load', 'pandas.read_pickle'}
NEEDED = {'torch.load': ('weights_only', True),
          'np.load': ('allow_pickle', False), 'numpy.load': ('allow_pickle', False)}
FORBIDDEN = {('shell', True), ('trust_remote_code', True), ('allow_pickle', True), ('weights_only', False)}


def unsafe(source):
    """What in Python `source` could run code that a file or a request brings, each with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ''] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [f'line {node.lineno}: import of {name}' for name in names if name.split('.')[0] in UNSAFE_IMPORTS]
        if isinstance(node, ast.Call):
            name, given = ast.unparse(node.func), {(k.arg, getattr(k.value, 'value', None)) for k in node.keywords}
            if name in UNSAFE_CALLS or given & FORBIDDEN or (name in NEEDED and NEEDED[name] not in given):
                found.append(f'line {node.lineno}: {ast.unparse(node)[:80]}')
    return found


SOURCES = sorted({*ROOT.glob('lgseg_ros/**/*.py'), *ROOT.glob('launch/*.py'), *ROOT.glob('scripts/*.py'),
                  *ROOT.glob('benchmark/**/*.py'), ROOT / 'setup.py'})


def test_the_source_runs_nothing_that_a_file_brings():
    assert len(SOURCES) > 50
    found = {str(path.relative_to(ROOT)): unsafe(path.read_text()) for path in SOURCES}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize('line', [
    'import pickle', 'from pickle import loads', 'import joblib', 'eval(text)', 'exec(text)', 'os.system(text)',
    'subprocess.run(text, shell=True)', 'torch.load(path)', 'torch.load(path, weights_only=False)', 'np.load(path)',
    'np.load(path, allow_pickle=True)', 'yaml.load(text, Loader=yaml.Loader)', 'yaml.unsafe_load(text)'])
def test_the_search_finds(line):
    assert len(unsafe(line)) == 1


@pytest.mark.parametrize('line', [
    'model.eval()', 'torch.load(path, weights_only=True)', 'np.load(path, allow_pickle=False)', 'yaml.safe_load(text)',
    'subprocess.run([program, text])'])
def test_the_search_leaves_alone(line):
    assert unsafe(line) == []
