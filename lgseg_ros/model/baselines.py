"""The heads that ours is compared with, at the same backbone and pyramid, and the choice among all by name.

Both keep the text in its own space: `project_text` only normalises, and pixels are projected to the width of the
text.  They take and return what `Segmenter` does.  Every head has an auxiliary loss on a deep map, so that the rows
of a comparison differ in how text and image meet and in nothing else.
"""

from dataclasses import asdict, replace

import torch
from torch import nn
from torch.nn import functional as F

from .backbone import create_backbone
from .segmenter import Pyramid, Segmentation, Segmenter, SegmenterConfig, batched_rows, cosine_logits
from .upsample import Upsampler


class _FrozenText(nn.Module):
    """What the two baselines share: backbone, pixel projection, and text rows as the encoder made them."""

    def __init__(self, config, pretrained):
        super().__init__()
        self.config = replace(config, row_dim=config.text_dim)
        self.backbone = create_backbone(config.backbone, pretrained)
        self.channels = self.backbone.feature_info.channels()
        self.to_text = nn.Conv2d(config.pixel_dim, config.text_dim, 1)
        self.upsample = Upsampler(config.pixel_dim, config.upsample_dim) if config.upsample_dim else None

    def project_text(self, embeddings):
        """Text embeddings [..., K, text_dim], brought to unit length; nothing is learned."""
        return F.normalize(embeddings, dim=-1)

    def describe(self):
        """The config as a plain dict."""
        return asdict(self.config)


class LsegStyle(_FrozenText):
    """Cosine of projected pixels with frozen text rows (Li et al., "Language-driven Semantic Segmentation", 2022)."""

    def __init__(self, config=SegmenterConfig(), pretrained=None):
        super().__init__(config, pretrained)
        self.pyramid = Pyramid(self.channels, config.pyramid_dim, config.pixel_dim)
        self.deep_to_text = nn.Conv2d(config.pyramid_dim, config.text_dim, 1)

    def forward(self, images, rows, mask=None):
        """As `Segmenter.forward`; rows are of width text_dim."""
        rows, bias = batched_rows(images, rows, mask)
        features = self.backbone(images)
        deep = self.pyramid.deep(features)
        embedded = self.pyramid.shallow(features, deep)
        logits = cosine_logits(self.to_text(embedded), rows, self.config.tau) + bias[..., None, None]
        auxiliary = cosine_logits(self.deep_to_text(deep), rows, self.config.tau) if self.training else None
        return Segmentation(logits, auxiliary, self.upsample(images, embedded) if self.upsample else None)


class Attention(nn.Module):
    """Multi-head attention.  torch's own fixes the number of rows when it is exported."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x, memory, bias=None):
        """x [B, K, D] reads memory [B, N, D]; bias [B, N] on the scores -> [B, K, D]."""
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2)
                             for part in (self.query(x), self.key(memory), self.value(memory)))
        scores = query @ key.transpose(2, 3) * key.shape[-1] ** -0.5
        if bias is not None:
            scores = scores + bias[:, None, None]
        return self.out((torch.softmax(scores, dim=-1) @ value).transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    """Pre-norm self-attention over the rows, cross-attention to the context, feed-forward x4 with GELU."""

    def __init__(self, dim, heads, dropout=0.1):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.own, self.cross = Attention(dim, heads), Attention(dim, heads)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, rows, memory, bias):
        """rows [B, K, D], memory [B, N, D], bias [B, K] -> [B, K, D]."""
        own = self.norm1(rows)
        rows = rows + self.dropout(self.own(own, own, bias))
        rows = rows + self.dropout(self.cross(self.norm2(rows), memory))
        return rows + self.dropout(self.feed_forward(rows))


class ContextDecoder(nn.Module):
    """Text rows attend to the image's context; width, heads and layers as in DenseCLIP's configurations."""

    def __init__(self, dim, width=256, heads=4, layers=3):
        super().__init__()
        self.memory = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, width), nn.LayerNorm(width))
        self.query = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, width))
        self.layers = nn.ModuleList(DecoderLayer(width, heads) for _ in range(layers))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim))

    def forward(self, rows, context, bias):
        """rows [B, K, D], context [B, N, D], bias [B, K] -> [B, K, D]."""
        memory, rows = self.memory(context), self.query(rows)
        for layer in self.layers:
            rows = layer(rows, memory, bias)
        return self.out(rows)


class DenseClipStyle(_FrozenText):
    """Score map on the deepest map and post-model prompting (Rao et al., "DenseCLIP", CVPR 2022).

    rows + gamma * decoder(rows, [mean, deepest map]), gamma 1e-4 at the start; the score map of these rows joins the
    deepest map and carries the auxiliary loss.  DenseCLIP appends the score map as K channels.  Here the words, and so
    K and their order, change from call to call, so it is appended as the text it stands for: at every position the
    rows weighted by the softmax of their scores.
    """

    def __init__(self, config=SegmenterConfig(), pretrained=None):
        super().__init__(config, pretrained)
        *shallower, deepest = self.channels
        self.visual = nn.Conv2d(deepest, config.text_dim, 1)
        self.context = ContextDecoder(config.text_dim)
        self.gamma = nn.Parameter(torch.full((config.text_dim,), 1e-4))
        self.pyramid = Pyramid((*shallower, deepest + config.text_dim), config.pyramid_dim, config.pixel_dim)

    def forward(self, images, rows, mask=None):
        """As `Segmenter.forward`; rows are of width text_dim."""
        rows, bias = batched_rows(images, rows, mask)
        *shallower, deepest = self.backbone(images)
        visual = self.visual(deepest)
        mean = visual.mean(dim=(2, 3))[:, None]
        context = torch.cat([mean, visual.flatten(2).transpose(1, 2)], dim=1)
        refined = rows + self.gamma * self.context(rows, context, bias)
        score = cosine_logits(visual, refined, self.config.tau) + bias[..., None, None]
        shares = torch.softmax(score.flatten(2), dim=1)
        # Elements of about 1, as the features beside them have.
        told = (F.normalize(refined, dim=2).transpose(1, 2) @ shares).reshape(visual.shape) * rows.shape[2] ** 0.5
        features = (*shallower, torch.cat([deepest, told], dim=1))
        embedded = self.pyramid.shallow(features, self.pyramid.deep(features))
        logits = cosine_logits(self.to_text(embedded), refined, self.config.tau) + bias[..., None, None]
        return Segmentation(logits, score if self.training else None,
                            self.upsample(images, embedded) if self.upsample else None)


HEADS = {'ours': Segmenter, 'lseg': LsegStyle, 'denseclip': DenseClipStyle}


def create_model(head, config=SegmenterConfig(), pretrained=None):
    """The network with that head, by its name in `HEADS`.  Raises ValueError that lists them."""
    if head not in HEADS:
        raise ValueError(f'head {head!r} is unknown; give one of: {", ".join(HEADS)}')
    return HEADS[head](config, pretrained)
