"""The Python package alone, by pip: for training, export and evaluation on machines without ROS.

colcon does not use this file (package.xml says ament_cmake); the services come from CMakeLists.txt only.
"""

import re
from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_namespace_packages, setup

ROOT = Path(__file__).resolve().parent
MANIFEST = ElementTree.parse(ROOT / 'package.xml').getroot()


def text_of(tag: str) -> str:
    """The text of an element of package.xml on one line."""
    return ' '.join(MANIFEST.findtext(tag).split())


def requirements(name: str) -> list[str]:
    """Packages of requirements/NAME below the next major version; only the project's own environments pin exactly."""
    pins = re.findall(r'^([\w-]+)==(\d+)', (ROOT / 'requirements' / name).read_text(), re.MULTILINE)
    return sorted({f'{package}<{int(major) + 1}' for package, major in pins})


# What a ROS install has in share/lgseg_ros lies in lgseg_ros/_share here, inside the package, so that it is found
# wherever pip puts that (a virtual environment, --user, --target).
SHARE = {f'lgseg_ros._share.{folder}': folder for folder in ('config', 'launch', 'weights') if (ROOT / folder).is_dir()}

setup(
    name=text_of('name'),
    version=text_of('version'),
    description=text_of('description'),
    license=text_of('license'),
    maintainer=text_of('maintainer'),
    maintainer_email=MANIFEST.find('maintainer').get('email'),
    python_requires='>=3.10',
    packages=find_namespace_packages(include=['lgseg_ros', 'lgseg_ros.*'], exclude=['*.__pycache__']) + list(SHARE),
    package_dir=SHARE,
    package_data={
        '': ['*.json', '*.npz', '*.onnx', '*.png', '*.safetensors', 'py.typed', '*.txt', '*.xml', '*.yaml'],
        'lgseg_ros._share.config': ['**/*'],
        'lgseg_ros._share.launch': ['*.py'],
        'lgseg_ros._share.weights': ['*.md'],
    },
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/lgseg_ros']),
        ('share/lgseg_ros', ['package.xml']),
    ],
    install_requires=requirements('run.txt') + requirements('run-without-ros.txt'),
    extras_require={'train': requirements('train.txt'), 'test': requirements('test.txt')},
    entry_points={'console_scripts': ['lgseg = lgseg_ros.cli.main:main']},
    # Not build/ itself, which is colcon's here; left-overs of deleted modules would be packed again.
    options={'build': {'build_base': 'build/pip'}},
    zip_safe=False,
)
