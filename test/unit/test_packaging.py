"""Packaging: what a clone, colcon and pip provide; versions, dependencies, scripts and service definitions."""

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXECUTABLES = ('segment_node', 'lgseg')
MAX_FILE_BYTES = 2 * 1024 * 1024
STAGES = ROOT / 'weights' / 'stages'   # weights that a later stage of training begins with; not installed


def git_files():
    completed = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True)
    if completed.returncode != 0:
        pytest.skip('not a git checkout')
    return [ROOT / name for name in completed.stdout.split('\0') if name]


@pytest.fixture(scope='module')
def manifest():
    package = pytest.importorskip('catkin_pkg.package')
    return package.parse_package(str(ROOT / 'package.xml'))


def test_package_xml_is_valid_and_has_no_warnings(manifest):
    warnings = []
    manifest.validate(warnings=warnings)
    assert warnings == []
    assert manifest.get_build_type() == 'ament_cmake'
    assert manifest.licenses == ['Apache-2.0']
    assert [group.name for group in manifest.member_of_groups] == ['rosidl_interface_packages']


def test_every_ros_package_imported_is_declared(manifest):
    """A missing dependency in package.xml is the usual reason why a node starts here but not on a robot."""
    declared = {depend.name for depend in manifest.exec_depends}
    ros_packages = {'rclpy', 'launch', 'launch_ros', 'cv_bridge', 'ament_index_python', 'diagnostic_updater',
                    'message_filters', 'tf2_ros', 'image_transport'}
    imported = set()
    for path in [*ROOT.glob('lgseg_ros/**/*.py'), *ROOT.glob('launch/*.py')]:
        names = re.findall(r'^\s*(?:from|import)\s+(\w+)', path.read_text(), re.MULTILINE)
        imported |= {name for name in names if name in ros_packages or name.endswith(('_msgs', '_srvs', '_interfaces'))}
    assert imported <= declared


def test_what_colcon_test_needs_is_declared(manifest):
    """rosdep installs these before `colcon test`; CMakeLists.txt requires them."""
    cmake = (ROOT / 'CMakeLists.txt').read_text()
    testing = cmake[cmake.index('if(BUILD_TESTING)'):]
    required = set(re.findall(r'find_package\((\w+)', testing[:testing.index('endif()')]))
    declared = {depend.name for depend in manifest.test_depends}
    assert required <= declared and {'python3-pytest', 'python3-pytest-timeout'} <= declared
    for folder in re.findall(r'pytest_test\(\w+ ([\w/]+)', testing):
        assert list((ROOT / folder).glob('test_*.py')), folder


def test_versions_agree(manifest):
    pytest.importorskip('setuptools')
    import lgseg_ros

    reported = subprocess.run(
        [sys.executable, 'setup.py', '--version'], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert reported.stdout.split()[-1] == manifest.version == lgseg_ros.__version__


def test_cmake_and_setup_py_name_modules_that_exist():
    cmake = (ROOT / 'CMakeLists.txt').read_text()
    modules = dict(re.findall(r'^lgseg_install_executable\((\w+) ([\w.]+)\)', cmake, re.MULTILINE))
    assert set(modules) == set(EXECUTABLES)
    modules['pip'] = re.search(r"'lgseg = ([\w.]+):main'", (ROOT / 'setup.py').read_text())[1]
    for module in modules.values():
        assert re.search(r'^def main\(', (ROOT / (module.replace('.', '/') + '.py')).read_text(), re.MULTILINE), module


@pytest.mark.parametrize('path', sorted((ROOT / 'requirements').glob('*.txt')), ids=lambda path: path.name)
def test_requirements_are_pinned_exactly(path):
    lines = [line.split('#')[0].strip() for line in path.read_text().splitlines()]
    unpinned = [
        line
        for line in lines
        if line and not re.fullmatch(r'-r [\w-]+\.txt|[\w.-]+==[\w.]+(; python_version [<>]=? "3\.\d+")?', line)
    ]
    assert unpinned == []


def test_no_package_is_pinned_in_two_files():
    """Each version is pinned in one place, so that pins cannot contradict each other."""
    files_of_package = {}
    for path in (ROOT / 'requirements').glob('*.txt'):
        for name in set(re.findall(r'^([\w.-]+)==', path.read_text(), re.MULTILINE)):
            files_of_package.setdefault(name.lower().replace('_', '-'), []).append(path.name)
    assert {name: files for name, files in files_of_package.items() if len(files) > 1} == {}


def test_the_hint_for_the_photograph_names_the_package_that_setup_installs():
    from lgseg_ros.media.images import INSTALL_PHOTOGRAPH

    assert INSTALL_PHOTOGRAPH.split()[-1] in (ROOT / 'requirements/demo.txt').read_text().split()


def test_files_in_git_are_small_or_weights():
    sizes = {path.relative_to(ROOT): path.stat().st_size for path in git_files() if path.is_file()}
    assert {path: size for path, size in sizes.items() if size > MAX_FILE_BYTES and path.parts[0] != 'weights'} == {}


@pytest.mark.parametrize(
    'script', sorted((ROOT / 'scripts').glob('*.sh')) + [ROOT / '.ci' / 'run'], ids=lambda path: path.name
)
def test_scripts_parse(script):
    subprocess.run(['bash', '-n', str(script)], check=True)
    if script.name not in ('common.sh', 'activate.sh'):  # these two are sourced
        assert os.access(script, os.X_OK)


def run_script(name, *arguments, **environment):
    """Run a script with the environment of a new terminal."""
    env = {'PATH': '/usr/bin:/bin', 'HOME': os.environ.get('HOME', '/'), **environment}
    return subprocess.run(
        ['bash', str(ROOT / 'scripts' / name), *arguments], env=env, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize('name', ['setup.sh', 'test.sh', 'lint.sh', 'docs.sh', 'colcon_test.sh'])
def test_help_describes_the_script(name):
    completed = run_script(name, '--help')
    assert (
        completed.returncode == 0
        and completed.stdout.startswith(f'usage: scripts/{name}')
        and '--help' in completed.stdout
    )


@pytest.mark.parametrize('arguments, environment, message', [
    (['--with', 'unknown'], {}, "--with takes train, test, demo or benchmark, not 'unknown'"),
    (['--unknown'], {}, "unknown argument '--unknown'"),
    ([], {'LGSEG_PYTHON': '/nonexistent/python3.11'}, 'LGSEG_PYTHON=/path/to/python3.11'),
])
def test_setup_errors_give_the_fix(arguments, environment, message):
    completed = run_script('setup.sh', *arguments, **environment)
    assert completed.returncode == 1
    assert message in completed.stderr
    assert 'scripts/setup.sh' in completed.stderr


def distribution(folder, python):
    """Make a folder like /opt/ros/<distribution>; returns the environment of a shell that sourced it."""
    site = folder / 'lib' / python / 'site-packages'
    for path in (site / 'rclpy/__init__.py', folder / 'share/ament_index/resource_index/packages/rclpy'):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return {'ROS_DISTRO': 'jazzy', 'AMENT_PREFIX_PATH': str(folder), 'PYTHONPATH': str(site)}


@pytest.mark.parametrize('python, path, message', [
    ('python3.4', None, 'is for python3.4, and '), ('python3.4', '', 'does not find its rclpy')])
def test_setup_reports_a_python_of_another_version_than_the_distribution(tmp_path, python, path, message):
    """As with conda or pyenv first in PATH."""
    environment = distribution(tmp_path, python)
    if path is not None:
        environment['PYTHONPATH'] = path
    completed = run_script('setup.sh', LGSEG_PYTHON=sys._base_executable, **environment)
    assert (
        completed.returncode == 1
        and message in completed.stderr
        and 'LGSEG_PYTHON=/usr/bin/python3' in completed.stderr
    )


@pytest.mark.parametrize('marker, expected', [(None, 'the folder'), ('pyvenv.cfg', 'wheels')])
def test_setup_distinguishes_a_distribution_from_wheels_in_another_environment(tmp_path, marker, expected):
    environment = distribution(tmp_path, f'python{sys.version_info[0]}.{sys.version_info[1]}')
    if marker:
        (tmp_path / marker).touch()
    code = f'source {ROOT}/scripts/setup.sh; choose_python_for_wheels() {{ :; }}; choose_ros; echo $ROS'
    env = {'PATH': '/usr/bin:/bin', 'LGSEG_PYTHON': sys._base_executable, **environment}
    completed = subprocess.run(['bash', '-c', code], env=env, capture_output=True, text=True, check=True)
    assert completed.stdout.strip() == (str(tmp_path) if expected == 'the folder' else 'wheels')


def test_setup_in_an_activated_shell_uses_the_base_python(tmp_path):
    """`.venv/bin` is first in PATH, and setup replaces that environment."""
    (tmp_path / 'scripts').mkdir()
    for name in ('setup.sh', 'common.sh'):
        (tmp_path / 'scripts' / name).write_text((ROOT / 'scripts' / name).read_text())
    venv.create(tmp_path / '.venv', symlinks=True)   # as python -m venv does
    code = f'source {tmp_path}/scripts/setup.sh && PYTHON=python3 && leave_venv && echo $PYTHON'
    path = f'{tmp_path}/.venv/bin:/usr/bin:/bin'
    python = subprocess.run(['bash', '-c', code], env={'PATH': path}, capture_output=True, text=True, check=True).stdout
    assert Path(python.strip()).is_file() and not python.startswith(str(tmp_path))


@pytest.mark.parametrize('installed, constraint', [
    ('1.21.5', 'numpy>=1.21.6,<2'),                              # Ubuntu 22.04: too old for ONNX Runtime
    ('1.26.4', 'numpy==1.26.4'), ('2.3.5', 'numpy==2.3.5'),      # kept
])
def test_the_numpy_of_the_distribution_is_kept_unless_it_is_too_old(installed, constraint):
    code = f'source {ROOT}/scripts/setup.sh && numpy_constraint {installed}'
    assert subprocess.run(['bash', '-c', code], capture_output=True, text=True, check=True).stdout == f'{constraint}\n'


def test_the_node_can_be_imported_with_rclpy_of_humble():
    """There, the module of event handlers has another name."""
    pytest.importorskip('rclpy')
    code = ('import sys, rclpy.node, rclpy.event_handler; sys.modules["rclpy.qos_event"] = rclpy.event_handler; '
            'sys.modules["rclpy.event_handler"] = None; import lgseg_ros.node.main')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- what colcon built


@pytest.fixture(scope='module')
def prefix():
    for folder in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        prefix = Path(folder)
        marker = prefix / 'share/ament_index/resource_index/packages/lgseg_ros'
        if marker.exists() and (prefix / 'lib/lgseg_ros').is_dir():
            return prefix
    pytest.skip('lgseg_ros is not built by colcon (scripts/setup.sh)')


def test_service_definitions(prefix):
    from lgseg_ros.srv import GetVocabulary, SetVocabulary

    vocabulary = {'version': 'uint32', 'names': 'sequence<string>', 'ids': 'sequence<uint16>'}
    assert SetVocabulary.Request.get_fields_and_field_types() == {
        'classes': 'sequence<string>', 'preset': 'string', 'confidence_threshold': 'float'}
    assert SetVocabulary.Response.get_fields_and_field_types() == {
        'success': 'boolean',
        'message': 'string',
        **vocabulary,
    }
    assert GetVocabulary.Request.get_fields_and_field_types() == {}
    assert GetVocabulary.Response.get_fields_and_field_types() == {
        'classes': 'sequence<string>', 'confidence_threshold': 'float', 'preset': 'string', **vocabulary}


def test_the_fields_of_label_info(prefix):
    from vision_msgs.msg import LabelInfo, VisionClass

    assert LabelInfo.get_fields_and_field_types() == {
        'header': 'std_msgs/Header', 'class_map': 'sequence<vision_msgs/VisionClass>', 'threshold': 'float'}
    assert VisionClass.get_fields_and_field_types() == {'class_id': 'uint16', 'class_name': 'string'}


def test_the_built_package_is_complete(prefix):
    for name in EXECUTABLES:
        assert os.access(prefix / 'lib/lgseg_ros' / name, os.X_OK)
    for folder in ('config', 'launch', 'weights'):
        in_source = [path.relative_to(ROOT) for path in git_files() if path.is_relative_to(ROOT / folder)
                     and not path.is_relative_to(STAGES)]
        assert in_source, f'{folder}/ is empty'
        assert [name for name in in_source if not (prefix / 'share/lgseg_ros' / name).is_file()] == []
    assert list(prefix.glob('lib/python3*/site-packages/lgseg_ros/py.typed')) or \
        list(prefix.glob('**/dist-packages/lgseg_ros/py.typed'))


def test_the_workspace_puts_the_command_on_the_path(prefix):
    """Messages refer to `lgseg ...`: the command must be in PATH after sourcing a workspace."""
    code = f'. {prefix}/share/lgseg_ros/package.sh && command -v lgseg'
    env = {**os.environ, 'PATH': '/usr/bin:/bin', 'COLCON_CURRENT_PREFIX': str(prefix)}
    completed = subprocess.run(['bash', '-c', code], env=env, capture_output=True, text=True, timeout=60)
    assert completed.stdout.split() == [str(prefix / 'bin/lgseg')], completed.stderr


def test_executables_find_the_python_that_has_the_engine(prefix):
    """From a shell with another python3, as under systemd, the interpreter of the build is used."""
    env = {**os.environ, 'PATH': '/usr/bin:/bin'}
    completed = subprocess.run(
        [str(prefix / 'lib/lgseg_ros/lgseg'), '--help'], env=env, capture_output=True, text=True, timeout=60
    )
    assert completed.returncode == 0, completed.stderr
    assert 'usage' in completed.stdout.lower()


# --- what pip installs


@pytest.mark.slow
def test_pip_installs_weights_and_type_marker(tmp_path):
    """Without downloads: the dependencies are those of this environment."""
    source, target = tmp_path / 'source', tmp_path / 'site'
    for path in git_files():
        if path.is_file():
            (source / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, source / path.relative_to(ROOT))
    options = ['--quiet', '--no-deps', '--no-build-isolation', '--target', str(target)]
    subprocess.run([sys.executable, '-m', 'pip', 'install', *options, str(source)], check=True)
    share = target / 'lgseg_ros' / '_share'
    missing = [name for name in (path.relative_to(ROOT) for path in git_files() if not path.is_relative_to(STAGES))
               if name.parts[0] in ('config', 'launch', 'weights') and not (share / name).is_file()]
    assert missing == []
    assert (target / 'lgseg_ros' / 'py.typed').is_file(), 'without it type checkers ignore the annotations'
    code = 'import lgseg_ros; print(lgseg_ros.__file__, lgseg_ros.__version__)'
    completed = subprocess.run(
        [sys.executable, '-c', code],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(target)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(target) in completed.stdout
