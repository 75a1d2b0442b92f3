"""What can be said of an NVIDIA GPU without importing a library: whether there is one."""

import os
from pathlib import Path

# The driver's nodes: a graphics card, a Jetson (Orin and before, Thor has the card's), Windows' Linux.
DEVICES = ('/dev/nvidia0', '/dev/nvidiactl', '/dev/nvhost-gpu', '/dev/nvgpu', '/dev/dxg')


class EngineError(RuntimeError):
    """An engine that cannot be built or run here; the message says why, and what to do."""


def has_gpu_device(devices=DEVICES):
    """Whether the driver shows a GPU that this process may use (CUDA_VISIBLE_DEVICES counted)."""
    if os.environ.get('CUDA_VISIBLE_DEVICES', '0').strip() in ('', '-1', 'NoDevFiles'):
        return False
    return any(Path(device).exists() for device in devices)
