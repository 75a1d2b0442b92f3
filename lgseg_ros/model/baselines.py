"""The heads that ours is compared with, on the same backbone and pyramid, and the choice among all by name.

Both keep the text in its own space: `project_text` only normalises, and pixels are projected to the width of the text
embeddings.  They take and return what `SegmentationNetwork` does.  Every head has an auxiliary loss on a deep map, so
the rows of a comparison differ only in how text and image are joined.
"""

from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from .backbone import create_backbone, feature_channels
from .network import (
    DEFAULT_CONFIG,
    BaseNetwork,
    NetworkConfig,
    NetworkOutput,
    Pyramid,
    SegmentationNetwork,
    batched_embeddings,
    cosine_logits,
)
from .upsampling import UpsampleHead


class FrozenTextNetwork(BaseNetwork):
    """What the two baselines share: backbone, pixel projection, and text embeddings as the encoder made them."""

    def __init__(self, config: NetworkConfig, pretrained: str | None) -> None:
        """Build the shared parts; arguments as `SegmentationNetwork`."""
        super().__init__()
        self.config = replace(config, embed_dim=config.text_dim)
        self.backbone = create_backbone(config.backbone, pretrained)
        self.channels = feature_channels(self.backbone)
        self.to_text = nn.Conv2d(config.pixel_dim, config.text_dim, 1)
        self.upsample = UpsampleHead(config.pixel_dim, config.upsample_dim) if config.upsample_dim else None

    def project_text(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Normalise text embeddings [..., K, text_dim]; nothing is learned."""
        return F.normalize(embeddings, dim=-1)


class LSegNetwork(FrozenTextNetwork):
    """Cosine of projected pixels with frozen text (Li et al., "Language-driven Semantic Segmentation", ICLR 2022)."""

    def __init__(self, config: NetworkConfig = DEFAULT_CONFIG, pretrained: str | None = None) -> None:
        """Build the network; arguments as `SegmentationNetwork`."""
        super().__init__(config, pretrained)
        self.pyramid = Pyramid(self.channels, config.pyramid_dim, config.pixel_dim)
        self.deep_to_text = nn.Conv2d(config.pyramid_dim, config.text_dim, 1)

    def forward(
        self, images: torch.Tensor, embeddings: torch.Tensor, mask: torch.Tensor | None = None
    ) -> NetworkOutput:
        """Segment as `SegmentationNetwork.forward`; the width of `embeddings` is text_dim."""
        embeddings, bias = batched_embeddings(images, embeddings, mask)
        features = self.backbone(images)
        deep = self.pyramid.deep(features)
        embedded = self.pyramid.shallow(features, deep)
        logits = cosine_logits(self.to_text(embedded), embeddings, self.config.tau) + bias[..., None, None]
        auxiliary = cosine_logits(self.deep_to_text(deep), embeddings, self.config.tau) if self.training else None
        return NetworkOutput(logits, auxiliary, self.upsample(images, embedded) if self.upsample is not None else None)


class Attention(nn.Module):
    """Multi-head attention.  An export of torch's own fixes the number of queries."""

    def __init__(self, dim: int, heads: int) -> None:
        """Build the layer; `dim` is a multiple of `heads`."""
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: torch.Tensor, memory: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Let x [B, K, D] attend to memory [B, N, D]; bias [B, N] is added to the attention logits -> [B, K, D]."""
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2)
                             for part in (self.query(x), self.key(memory), self.value(memory)))
        attention = query @ key.transpose(2, 3) * key.shape[-1] ** -0.5
        if bias is not None:
            attention = attention + bias[:, None, None]
        attended: torch.Tensor = self.out((torch.softmax(attention, dim=-1) @ value).transpose(1, 2).flatten(2))
        return attended


class DecoderLayer(nn.Module):
    """Pre-norm self-attention over the text embeddings, cross-attention to the context, feed-forward x4 with GELU."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.1) -> None:
        """Build the layer; `dim` is a multiple of `heads`, `dropout` in 0..1."""
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.own, self.cross = Attention(dim, heads), Attention(dim, heads)   # own: self-attention, a checkpoint's key
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, embeddings: torch.Tensor, memory: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Update the text embeddings `embeddings` [B, K, D] by memory [B, N, D]; bias [B, K] is of `padding_bias`."""
        normed = self.norm1(embeddings)
        embeddings = embeddings + self.dropout(self.own(normed, normed, bias))
        embeddings = embeddings + self.dropout(self.cross(self.norm2(embeddings), memory))
        updated: torch.Tensor = embeddings + self.dropout(self.feed_forward(embeddings))
        return updated


class ContextDecoder(nn.Module):
    """Text embeddings attend to the image's context; width, heads and layers as in DenseCLIP's configurations."""

    def __init__(self, dim: int, width: int = 256, heads: int = 4, layers: int = 3) -> None:
        """Build the decoder.

        Args:
            dim: of the text embeddings.
            width: inside the decoder, a multiple of `heads`.
            heads: of every attention.
            layers: number of `DecoderLayer`.
        """
        super().__init__()
        self.memory = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, width), nn.LayerNorm(width))
        self.query = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, width))
        self.layers = nn.ModuleList(DecoderLayer(width, heads) for _ in range(layers))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim))

    def forward(self, embeddings: torch.Tensor, context: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Text embeddings `embeddings` [B, K, D], context [B, N, D] and bias [B, K] of `padding_bias` -> [B, K, D]."""
        memory, embeddings = self.memory(context), self.query(embeddings)
        for layer in self.layers:
            embeddings = layer(embeddings, memory, bias)
        update: torch.Tensor = self.out(embeddings)
        return update


class DenseCLIPNetwork(FrozenTextNetwork):
    """Score map on the deepest map and post-model prompting (Rao et al., "DenseCLIP", CVPR 2022).

    The text embeddings become embeddings + gamma * decoder(embeddings, [mean, deepest map]), with gamma 1e-4 at the
    start.  Their score map joins the deepest map and carries the auxiliary loss.  DenseCLIP appends the score map as K
    channels.  Here the vocabulary, and so K and its order, changes from call to call.  The expected text embedding is
    appended: at every position the text embeddings weighted by the softmax of their scores.
    """

    def __init__(self, config: NetworkConfig = DEFAULT_CONFIG, pretrained: str | None = None) -> None:
        """Build the network; arguments as `SegmentationNetwork`."""
        super().__init__(config, pretrained)
        *shallower, deepest = self.channels
        self.visual = nn.Conv2d(deepest, config.text_dim, 1)
        self.context = ContextDecoder(config.text_dim)
        self.gamma = nn.Parameter(torch.full((config.text_dim,), 1e-4))
        self.pyramid = Pyramid((*shallower, deepest + config.text_dim), config.pyramid_dim, config.pixel_dim)

    def forward(
        self, images: torch.Tensor, embeddings: torch.Tensor, mask: torch.Tensor | None = None
    ) -> NetworkOutput:
        """Segment as `SegmentationNetwork.forward`; the width of `embeddings` is text_dim."""
        embeddings, bias = batched_embeddings(images, embeddings, mask)
        *shallower, deepest = self.backbone(images)
        visual = self.visual(deepest)
        mean = visual.mean(dim=(2, 3))[:, None]
        context = torch.cat([mean, visual.flatten(2).transpose(1, 2)], dim=1)
        refined = embeddings + self.gamma * self.context(embeddings, context, bias)
        score_map = cosine_logits(visual, refined, self.config.tau) + bias[..., None, None]
        probability = torch.softmax(score_map.flatten(2), dim=1)
        # Elements of about 1, as the features beside them have.
        expected = (F.normalize(refined, dim=2).transpose(1, 2) @ probability).reshape(visual.shape) \
            * embeddings.shape[2] ** 0.5
        features = (*shallower, torch.cat([deepest, expected], dim=1))
        embedded = self.pyramid.shallow(features, self.pyramid.deep(features))
        logits = cosine_logits(self.to_text(embedded), refined, self.config.tau) + bias[..., None, None]
        return NetworkOutput(logits, score_map if self.training else None,
                             self.upsample(images, embedded) if self.upsample is not None else None)


HEADS: dict[str, type[SegmentationNetwork | LSegNetwork | DenseCLIPNetwork]] = {
    'ours': SegmentationNetwork, 'lseg': LSegNetwork, 'denseclip': DenseCLIPNetwork}


def create_model(head: str, config: NetworkConfig = DEFAULT_CONFIG, pretrained: str | None = None) -> BaseNetwork:
    """Build the network with a head.

    Args:
        head: a name in `HEADS`.
        config: what to build.
        pretrained: weights of the backbone, see `create_backbone`.

    Returns:
        The network, in training mode.

    Raises:
        ValueError: the head is unknown (the message lists all), or the backbone cannot be used.
    """
    if head not in HEADS:
        raise ValueError(f'head {head!r} is unknown; give one of: {", ".join(HEADS)}')
    return HEADS[head](config, pretrained)
