"""The language-guided segmentation network: backbone, pyramid, fusion blocks, cosine logits, learned upsampling.

The method is our reading of "CLIP for Lightweight Semantic Segmentation" (arXiv 2310.07394); see `fusion` for the part
that is specific to it.  Shapes: B images of H x W pixels, K text embeddings.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from .backbone import create_backbone, feature_channels
from .fusion import FusionBlock, padding_bias
from .upsampling import UpsampleHead, upsample2x


@dataclass(frozen=True)
class NetworkConfig:
    """All that is needed to build the same network again; stored in every checkpoint and model card."""

    backbone: str = 'tf_efficientnet_lite0'   # name of a timm model
    text_dim: int = 512        # width of the text encoder's embeddings (CLIP ViT-B/16: 512)
    embed_dim: int = 128         # width of the projected text embeddings and of the tokens, a multiple of 4
    pyramid_dim: int = 128     # channels at strides 16 and 8, where the fusion blocks are; even
    pixel_dim: int = 96        # channels of the pixel embeddings at stride 4
    blocks: int = 2            # number of fusion blocks
    image_to_text: bool = True  # whether the fusion blocks have this bridge
    text_to_image: bool = True
    tau: float = 0.07          # temperature of the cosine logits
    upsample_dim: int = 0      # channels of the learned upsampling; 0: bilinear


DEFAULT_CONFIG = NetworkConfig()


class NetworkOutput(NamedTuple):
    """What a network returns; all maps are float, with the dtype of the network or fp32."""

    logits: torch.Tensor                   # [B, K, H/4, W/4], cosine / tau, in -1 / tau..1 / tau
    auxiliary: torch.Tensor | None         # logits [B, K, H/16, W/16] for the auxiliary loss; None outside training
    upsample_logits: torch.Tensor | None   # [B, 64, H/4, W/4], see `upsampling`; None for bilinear upsampling


class BaseNetwork(nn.Module, ABC):
    """What every head offers: the configuration, the projection of text embeddings, and segmentation."""

    config: NetworkConfig

    @abstractmethod
    def project_text(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Bring text embeddings into the space that `forward` takes.

        Args:
            embeddings: of the text encoder, float [..., K, text_dim], unit length.

        Returns:
            Float [..., K, embed_dim], unit length.
        """

    if TYPE_CHECKING:

        def __call__(
            self, images: torch.Tensor, embeddings: torch.Tensor, mask: torch.Tensor | None = None
        ) -> NetworkOutput:
            """Segment; see `SegmentationNetwork.forward`."""

    def describe(self) -> dict[str, Any]:
        """The configuration as a plain dict, for checkpoints and model cards."""
        return asdict(self.config)


def separable(inputs: int, outputs: int, last: bool = False) -> nn.Sequential:
    """3x3 depthwise and 1x1 pointwise convolution; without ReLU when `last`, so that embeddings are signed."""
    layers = [nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
              nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False),
              nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([] if last else [nn.ReLU()]))


def lateral(inputs: int, outputs: int) -> nn.Sequential:
    """1x1 convolution to another number of channels, linear."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


class Pyramid(nn.Module):
    """Light top-down feature pyramid; the mean over the image is added to the deepest level."""

    def __init__(self, channels: Sequence[int], dim: int, pixel_dim: int) -> None:
        """Build the pyramid.

        Args:
            channels: of the backbone's maps at strides 4, 8, 16 and 32.
            dim: channels at strides 16 and 8.
            pixel_dim: channels of the pixel embeddings at stride 4.
        """
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

    def deep(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Merge the backbone's maps at strides 16 and 32 into one [B, dim, H/16, W/16]."""
        _, _, f16, f32 = features
        x32 = F.relu(self.lateral32(f32) + self.context(f32.mean(dim=(2, 3)))[..., None, None])
        x16 = self.lateral16(f16)
        deep: torch.Tensor = self.smooth16(F.relu(x16 + upsample2x(x32, x16)))
        return deep

    def shallow(self, features: Sequence[torch.Tensor], x16: torch.Tensor) -> torch.Tensor:
        """Bring the (fused) map at stride 16 down to signed pixel embeddings [B, pixel_dim, H/4, W/4]."""
        f4, f8, _, _ = features
        x8 = self.lateral8(f8)
        x8 = self.smooth8(F.relu(x8 + upsample2x(x16, x8)))
        x4 = self.lateral4(f4)
        # Image sizes are multiples of 8, so there is nothing to crop.
        x8 = F.interpolate(self.narrow8(x8), scale_factor=2, mode='bilinear', align_corners=False)
        embeddings: torch.Tensor = self.smooth4(F.relu(x4 + x8))
        return embeddings


def cosine_logits(pixels: torch.Tensor, embeddings: torch.Tensor, tau: float) -> torch.Tensor:
    """Cosine of every pixel embedding with every text embedding, over the temperature.

    Args:
        pixels: float [B, C, H, W], of any length.
        embeddings: text embeddings, float [B, K, C], of any length.
        tau: temperature, above 0.

    Returns:
        Float [B, K, H, W], in -1 / tau..1 / tau; fp32 where `pixels` are bfloat16.
    """
    batch, _, height, width = pixels.shape
    if pixels.dtype == torch.bfloat16:  # its 8 bits would round the logits to steps of 1/16
        with torch.autocast(pixels.device.type, enabled=False):
            return cosine_logits(pixels.float(), embeddings.float(), tau)
    pixels = pixels.flatten(2)
    # In ONNX Runtime a product with ones is several times as fast as a sum over channels.
    squares = torch.ones_like(pixels[:, :, :1]).transpose(1, 2) @ pixels.square()
    # Temperature and length are applied where there are fewer numbers than in the pixels.
    logits = F.normalize(embeddings, dim=2) / tau @ pixels * squares.clamp(min=1e-12).rsqrt()
    return logits.reshape(batch, -1, height, width)


def batched_embeddings(images: torch.Tensor, embeddings: torch.Tensor,
                 mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Give every image of a batch its text embeddings.

    Args:
        images: [B, 3, H, W].
        embeddings: text embeddings [K, D], the same for all images, or [B, K, D].
        mask: bool [B, K], False for padded text embeddings; None when all are real.

    Returns:
        Text embeddings [B, K, D], and the attention bias [B, K] that turns padded ones off.
    """
    if embeddings.dim() == 2:
        embeddings = embeddings.expand(images.shape[0], -1, -1)
    return embeddings, torch.zeros_like(embeddings[..., 0]) if mask is None else padding_bias(mask, embeddings)


class SegmentationNetwork(BaseNetwork):
    """The network with the two-way fusion module: images and text embeddings in, one logit map per text embedding out.

    Permuting the text embeddings permutes the logits and changes nothing else.  Padded text embeddings (mask False)
    change nothing for the others.
    """

    def __init__(self, config: NetworkConfig = DEFAULT_CONFIG, pretrained: str | None = None) -> None:
        """Build the network.

        Args:
            config: what to build.
            pretrained: weights of the backbone, see `create_backbone`; None for random ones.

        Raises:
            ValueError: the backbone cannot be used; see `create_backbone`.
        """
        super().__init__()
        self.config = config
        self.backbone = create_backbone(config.backbone, pretrained)
        self.pyramid = Pyramid(feature_channels(self.backbone), config.pyramid_dim, config.pixel_dim)
        self.project = nn.Linear(config.text_dim, config.embed_dim)
        self.fusion = nn.ModuleList(
            FusionBlock(config.pyramid_dim, config.embed_dim, config.image_to_text, config.text_to_image)
            for _ in range(config.blocks))
        # Residual text update t + gamma * delta (DenseCLIP starts gamma at 1e-4).
        self.gamma = nn.Parameter(torch.full((config.embed_dim,), 1e-4))
        self.to_pixel = nn.Linear(config.embed_dim, config.pixel_dim)
        self.to_deep = nn.Linear(config.embed_dim, config.pyramid_dim)
        self.upsample = UpsampleHead(config.pixel_dim, config.upsample_dim) if config.upsample_dim else None

    def project_text(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Project text embeddings [..., K, text_dim] to unit vectors [..., K, embed_dim]; see `BaseNetwork`."""
        return F.normalize(self.project(embeddings), dim=-1)

    def forward(
        self, images: torch.Tensor, embeddings: torch.Tensor, mask: torch.Tensor | None = None
    ) -> NetworkOutput:
        """Segment images.

        Args:
            images: float [B, 3, H, W], RGB, normalised to [-1, 1], H and W multiples of 8.
            embeddings: text embeddings from `project_text`, float [K, embed_dim] or [B, K, embed_dim]; K from 1 on.
            mask: bool [B, K], False for padded text embeddings; None when all are real.

        Returns:
            The maps of `NetworkOutput`; logits of padded text embeddings are about `fusion.MASKED`.
        """
        embeddings, bias = batched_embeddings(images, embeddings, mask)
        features = self.backbone(images)
        deep = self.pyramid.deep(features)
        tokens = embeddings
        for block in self.fusion:
            deep, tokens = block(deep, tokens, bias)
        refined = embeddings + self.gamma * tokens
        pixels = self.pyramid.shallow(features, deep)
        logits = cosine_logits(pixels, self.to_pixel(refined), self.config.tau)
        auxiliary = cosine_logits(deep, self.to_deep(refined), self.config.tau) if self.training else None
        if mask is not None:
            logits = logits + bias[..., None, None]
        return NetworkOutput(logits, auxiliary, self.upsample(images, pixels) if self.upsample is not None else None)


def with_upsampling(model: SegmentationNetwork, dim: int) -> SegmentationNetwork:
    """Give a network with bilinear upsampling a learned one, which at first gives the same answers.

    Args:
        model: a network with `upsample_dim` 0; it is not changed.
        dim: channels of the learned upsampling, from 1 on.

    Returns:
        A new network with the parameters of `model`.
    """
    grown = SegmentationNetwork(replace(model.config, upsample_dim=dim))
    grown.load_state_dict(model.state_dict(), strict=False)
    return grown
