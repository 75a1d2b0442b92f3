"""The SROS 2 policy lists exactly what the node uses; the source never executes code from files or requests."""

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
GRAPH_QUERIES = {('topic', 'publish'): 'get_publisher_names_and_types_by_node',
         ('topic', 'subscribe'): 'get_subscriber_names_and_types_by_node',
         ('service', 'reply'): 'get_service_names_and_types_by_node',
         ('service', 'request'): 'get_client_names_and_types_by_node'}
# Together they use every topic.
CONFIGURATIONS = [(), ('image_transport:=compressed', 'use_sim_time:=true', 'bond_heartbeat_period:=0.1')]
NOT_ON_HUMBLE = {'/lgseg/get_type_description'}                         # Humble's nodes do not have it


# --- the policy


def policy_names():
    """{(kind, role): fully qualified names} that the policy allows the node."""
    profile = ElementTree.parse(POLICY).getroot().find("enclaves/enclave[@path='/lgseg']/profiles/profile")
    assert (profile.get('ns'), profile.get('node')) == ('/', 'lgseg')
    names = {key: set() for key in GRAPH_QUERIES}
    for group in profile:
        (role, rule), = group.attrib.items()
        assert rule == 'ALLOW'
        for entry in group:
            assert entry.tag + 's' == group.tag and entry.text.strip() == entry.text
            names[entry.tag, role].add(resolved(entry.text))
    return names


def resolved(name):
    """A name of the policy as SROS 2 resolves it for /lgseg."""
    return '/lgseg' + name[1:] if name.startswith('~') else name if name.startswith('/') else f'/{name}'


def graph_names(observer):
    """{(kind, role): names} of the node /lgseg on the graph; empty until it is discovered."""
    try:
        return {
            key: {name for name, _ in getattr(observer, query)('lgseg', '/')} for key, query in GRAPH_QUERIES.items()
        }
    except rclpy.node.NodeNameNonExistentError:
        return {key: set() for key in GRAPH_QUERIES}


def stable_value(query, seconds=1.5):
    """What `query` returns once it has not changed for `seconds`: discovery is gradual."""
    value, since = query(), time.monotonic()
    while time.monotonic() - since < seconds:
        time.sleep(0.1)
        if (current := query()) != value:
            value, since = current, time.monotonic()
    return value


@pytest.fixture(scope='module')
def node_names():
    """The names that the real, active node uses in any of the configurations."""
    context = rclpy.Context()
    rclpy.init(context=context)
    observer = rclpy.create_node('observer', context=context)
    names = {key: set() for key in GRAPH_QUERIES}
    try:
        for parameters in CONFIGURATIONS:
            wait_until(lambda: 'lgseg' not in observer.get_node_names(), 'the previous node to leave')
            with NodeProcess('num_threads:=1', *parameters) as process:
                wait_until(lambda: 'activated; ' in process.log or process.process.poll() is not None,
                           'the node to start')
                assert process.process.poll() is None, process.log
                wait_until(lambda: graph_names(observer)['topic', 'subscribe'], 'its topics')
                for key, used in stable_value(lambda: graph_names(observer)).items():
                    names[key] |= used
                process.end()
    finally:
        observer.destroy_node()
        rclpy.try_shutdown(context=context)
    return names


@pytest.mark.parametrize('key', GRAPH_QUERIES, ids='-'.join)
def test_the_policy_allows_all_that_the_node_uses(node_names, key):
    missing = node_names[key] - policy_names()[key]
    assert missing == set(), f'add to {POLICY.name}: the node uses it, the policy denies it'


@pytest.mark.parametrize('key', GRAPH_QUERIES, ids='-'.join)
def test_the_policy_allows_nothing_else(node_names, key):
    unused = policy_names()[key] - node_names[key] - NOT_ON_HUMBLE
    assert unused == set(), f'remove from {POLICY.name}: nothing uses it'


def test_the_policy_has_the_current_format():
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
REQUIRED_ARGUMENTS = {'torch.load': ('weights_only', True),
          'np.load': ('allow_pickle', False), 'numpy.load': ('allow_pickle', False)}
FORBIDDEN_ARGUMENTS = {('shell', True), ('trust_remote_code', True), ('allow_pickle', True), ('weights_only', False)}


def unsafe(source):
    """Statements of Python `source` that could execute code from a file or a request, with their lines."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ''] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [f'line {node.lineno}: import of {name}' for name in names if name.split('.')[0] in UNSAFE_IMPORTS]
        if isinstance(node, ast.Call):
            name, given = ast.unparse(node.func), {(k.arg, getattr(k.value, 'value', None)) for k in node.keywords}
            if (
                name in UNSAFE_CALLS
                or given & FORBIDDEN_ARGUMENTS
                or (name in REQUIRED_ARGUMENTS and REQUIRED_ARGUMENTS[name] not in given)
            ):
                found.append(f'line {node.lineno}: {ast.unparse(node)[:80]}')
    return found


SOURCES = sorted({*ROOT.glob('lgseg_ros/**/*.py'), *ROOT.glob('launch/*.py'), *ROOT.glob('scripts/*.py'),
                  *ROOT.glob('benchmark/**/*.py'), ROOT / 'setup.py'})


def test_the_source_executes_no_code_from_files():
    assert len(SOURCES) > 50
    found = {str(path.relative_to(ROOT)): unsafe(path.read_text()) for path in SOURCES}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize('line', [
    'import pickle', 'from pickle import loads', 'import joblib', 'eval(text)', 'exec(text)', 'os.system(text)',
    'subprocess.run(text, shell=True)', 'torch.load(path)', 'torch.load(path, weights_only=False)', 'np.load(path)',
    'np.load(path, allow_pickle=True)', 'yaml.load(text, Loader=yaml.Loader)', 'yaml.unsafe_load(text)'])
def test_unsafe_code_is_found(line):
    assert len(unsafe(line)) == 1


@pytest.mark.parametrize('line', [
    'model.eval()', 'torch.load(path, weights_only=True)', 'np.load(path, allow_pickle=False)', 'yaml.safe_load(text)',
    'subprocess.run([program, text])'])
def test_safe_code_is_accepted(line):
    assert unsafe(line) == []
