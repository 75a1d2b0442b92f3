"""The language-guided segmenter: backbone, light pyramid, fusion blocks, cosine logits, learned upsampling."""

from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from .backbone import create_backbone
from .fusion import FusionBlock, double, row_bias
from .layers import lateral, separable
from .upsample import Upsampler


@dataclass(frozen=True)
class SegmenterConfig:
    """What is needed to build the same network again; stored in every checkpoint."""

    backbone: str = 'tf_efficientnet_lite0'
    text_dim: int = 512        # width of the text encoder's space (CLIP ViT-B/16: 512)
    row_dim: int = 128         # width of the projected text rows and of the tokens
    pyramid_dim: int = 128     # channels at strides 16 and 8, where the fusion blocks sit
    pixel_dim: int = 96        # channels of the pixel embeddings at stride 4
    blocks: int = 2
    image_to_text: bool = True
    text_to_image: bool = True
    tau: float = 0.07          # temperature of the cosine logits
    upsample_dim: int = 0      # channels of the learned upsampling; 0: bilinear


class Segmentation(NamedTuple):
    """What the network returns."""

    logits: torch.Tensor       # [B, K, H/4, W/4], cosine / tau
    auxiliary: torch.Tensor    # [B, K, H/16, W/16]; None outside training
    scores: torch.Tensor       # [B, 64, H/4, W/4], see upsample.py; None for bilinear upsampling


class Pyramid(nn.Module):
    """Light top-down feature pyramid; the deepest level also hears the image's mean."""

    def __init__(self, channels, dim, pixel_dim):
        super().__init__()
        c4, c8, c16, c32 = channels
        self.lateral32 = lateral(c32, dim)
        self.context = nn.Linear(c32, dim)
        self.lateral16 = lateral(c16, dim)
        self.smooth16 = separable(dim, dim)
        self.lateral8 = lateral(c8, dim)
        self.smooth8 = separable(dim, dim)
        self.narrow8 = lateral(dim, pixel_dim)
        self.lateral4 = lateral(c4, pixel_dim)
        self.smooth4 = nn.Sequential(separable(pixel_dim, pixel_dim), separable(pixel_dim, pixel_dim, last=True))

    def deep(self, features):
        """Features at strides 4, 8, 16, 32 -> the map at stride 16."""
        _, _, f16, f32 = features
        x32 = F.relu(self.lateral32(f32) + self.context(f32.mean(dim=(2, 3)))[..., None, None])
        x16 = self.lateral16(f16)
        return self.smooth16(F.relu(x16 + double(x32, x16)))

    def shallow(self, features, x16):
        """The (fused) map at stride 16 down to signed pixel embeddings at stride 4."""
        f4, f8, _, _ = features
        x8 = self.lateral8(f8)
        x8 = self.smooth8(F.relu(x8 + double(x16, x8)))
        x4 = self.lateral4(f4)
        # Sizes are multiples of 8, so there is nothing to cut.
        x8 = F.interpolate(self.narrow8(x8), scale_factor=2, mode='bilinear', align_corners=False)
        return self.smooth4(F.relu(x4 + x8))


def cosine_logits(pixels, rows, tau):
    """pixels [B, C, H, W], rows [B, K, C] -> cosine / tau, [B, K, H, W]."""
    batch, _, height, width = pixels.shape
    if pixels.dtype == torch.bfloat16:  # its 8 bits would round the logits to steps of 1/16
        with torch.autocast(pixels.device.type, enabled=False):
            return cosine_logits(pixels.float(), rows.float(), tau)
    pixels = pixels.flatten(2)
    # In ONNX Runtime a product with ones is several times as fast as a sum over channels.
    squares = torch.ones_like(pixels[:, :, :1]).transpose(1, 2) @ pixels.square()
    # Temperature and length go where there are fewer numbers than in the pixels.
    logits = F.normalize(rows, dim=2) / tau @ pixels * squares.clamp(min=1e-12).rsqrt()
    return logits.reshape(batch, -1, height, width)


def batched_rows(images, rows, mask):
    """Rows [K, D] or [B, K, D] as [B, K, D], and the score bias [B, K] that turns padded rows (mask False) off."""
    if rows.dim() == 2:
        rows = rows.expand(images.shape[0], -1, -1)
    return rows, torch.zeros_like(rows[..., 0]) if mask is None else row_bias(mask, rows)


class Segmenter(nn.Module):
    """Images and text rows in, one logit map per row out.

    Permuting the rows permutes the logits and nothing else; padded rows
    (mask False) change nothing for the others.
    """

    def __init__(self, config=SegmenterConfig(), pretrained=None):
        """Build from `config`; `pretrained` is passed to `create_backbone`."""
        super().__init__()
        self.config = config
        self.backbone = create_backbone(config.backbone, pretrained)
        self.pyramid = Pyramid(self.backbone.feature_info.channels(), config.pyramid_dim, config.pixel_dim)
        self.project = nn.Linear(config.text_dim, config.row_dim)
        self.fusion = nn.ModuleList(
            FusionBlock(config.pyramid_dim, config.row_dim, config.image_to_text, config.text_to_image)
            for _ in range(config.blocks))
        # Residual text update t + gamma * delta (DenseCLIP starts gamma at 1e-4).
        self.gamma = nn.Parameter(torch.full((config.row_dim,), 1e-4))
        self.to_pixel = nn.Linear(config.row_dim, config.pixel_dim)
        self.to_deep = nn.Linear(config.row_dim, config.pyramid_dim)
        self.upsample = Upsampler(config.pixel_dim, config.upsample_dim) if config.upsample_dim else None

    def project_text(self, embeddings):
        """Unit text embeddings [..., K, text_dim] -> the rows [..., K, row_dim] that `forward` takes."""
        return F.normalize(self.project(embeddings), dim=-1)

    def forward(self, images, rows, mask=None):
        """Segment.

        images: [B, 3, H, W], normalised to [-1, 1], RGB, H and W multiples of 8.
        rows: [K, row_dim] or [B, K, row_dim], from `project_text`.
        mask: [B, K] bool, False for padded rows; None when all are real.
        """
        rows, bias = batched_rows(images, rows, mask)
        features = self.backbone(images)
        deep = self.pyramid.deep(features)
        tokens = rows
        for block in self.fusion:
            deep, tokens = block(deep, tokens, bias)
        refined = rows + self.gamma * tokens
        pixels = self.pyramid.shallow(features, deep)
        logits = cosine_logits(pixels, self.to_pixel(refined), self.config.tau)
        auxiliary = cosine_logits(deep, self.to_deep(refined), self.config.tau) if self.training else None
        if mask is not None:
            logits = logits + bias[..., None, None]
        return Segmentation(logits, auxiliary, self.upsample(images, pixels) if self.upsample else None)

    def describe(self):
        """The config as a plain dict, for checkpoints and model cards."""
        return asdict(self.config)


def with_upsampling(model, dim):
    """A `Segmenter` that interpolates as one that learns to with `dim` channels, so far with the same answers."""
    grown = Segmenter(replace(model.config, upsample_dim=dim))
    grown.load_state_dict(model.state_dict(), strict=False)
    return grown
