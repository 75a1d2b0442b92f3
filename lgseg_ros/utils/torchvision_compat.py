"""Make `import torchvision` work where its compiled operators do not match torch.

A CPU build of torch beside the registry's torchvision, and several wheel
mixes on Jetson, fail with "operator torchvision::nms does not exist" as soon
as timm or open_clip import torchvision.  Neither package calls that operator
for what we use, so declaring its signature is enough.
"""

import sys
from typing import Any

_OPERATORS = (
    'nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
    'qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
)
_library: Any = None  # torch drops the declarations when the object is collected


def ensure_torchvision() -> None:
    """Import torchvision; declare its missing operators only if the plain import fails.

    Raises:
        ImportError: torchvision is not installed.
        RuntimeError: torchvision cannot be imported for another reason than its missing operators.
    """
    global _library
    try:
        import torchvision
    except RuntimeError as error:
        if 'torchvision::nms' not in str(error):
            raise
        import torch
        for name in [n for n in sys.modules if n.split('.')[0] == 'torchvision']:
            del sys.modules[name]
        _library = torch.library.Library('torchvision', 'DEF')
        for signature in _OPERATORS:
            _library.define(signature)
        import torchvision  # noqa: F401
