"""Convolutions that pyramid and detail are made of."""

from torch import nn


def separable(inputs, outputs, last=False):
    """3x3 depthwise, 1x1 pointwise; the last one stays linear so that embeddings are signed."""
    layers = [nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
              nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False),
              nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([] if last else [nn.ReLU()]))


def lateral(inputs, outputs):
    """1x1 convolution to another width, linear."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
