"""The two-way fusion module: a CNN branch and a transformer branch joined by bridges.

Our reading of "CLIP for Lightweight Semantic Segmentation" (arXiv 2310.07394);
the block's equations follow Mobile-Former (Chen et al., CVPR 2022).  One change
against Mobile-Former: its dynamic ReLU reads the first token, which would make
the class order matter; ours reads an order-free summary of all tokens.

Shapes: B images, K class rows, d token width, C channels, H x W map.
"""

import torch
from torch import nn
from torch.nn import functional as F

MASKED = -1e4  # added to the score of a padded row; finite so that fp16 stays finite


def row_bias(mask, like):
    """Additive score bias [B, K] of 0 for real rows and `MASKED` for padded ones."""
    return (~mask).to(like.dtype) * MASKED


class ImageToText(nn.Module):
    """Bridge T += Wo softmax(T Wq X^T / sqrt(C / h)) X; keys and values are X itself."""

    def __init__(self, token_dim, channels, heads=2):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(token_dim, channels)
        self.out = nn.Linear(channels, token_dim)

    def forward(self, tokens, image):
        """tokens [B, K, d], image [B, C, H, W] -> tokens [B, K, d]."""
        batch, rows, _ = tokens.shape
        width = image.shape[1] // self.heads
        pixels = image.reshape(batch, self.heads, width, -1)
        query = self.query(tokens).reshape(batch, rows, self.heads, width).transpose(1, 2)
        weights = torch.softmax(query @ pixels * width ** -0.5, dim=-1)
        seen = (weights @ pixels.transpose(2, 3)).transpose(1, 2).reshape(batch, rows, -1)
        return tokens + self.out(seen)


class TextToImage(nn.Module):
    """Bridge X += softmax(X (T Wk)^T / sqrt(C / h)) (T Wv)."""

    def __init__(self, token_dim, channels, heads=2):
        super().__init__()
        self.heads = heads
        self.key = nn.Linear(token_dim, channels)
        self.value = nn.Linear(token_dim, channels)

    def forward(self, image, tokens, bias):
        """image [B, C, H, W], tokens [B, K, d], bias [B, K] -> image [B, C, H, W]."""
        batch, channels, height, width = image.shape
        head = channels // self.heads
        pixels = image.reshape(batch, self.heads, head, -1)
        key = self.key(tokens).reshape(batch, -1, self.heads, head).transpose(1, 2)
        value = self.value(tokens).reshape(batch, -1, self.heads, head).permute(0, 2, 3, 1)
        scores = key @ pixels * head ** -0.5 + bias[:, None, :, None]
        read = value @ torch.softmax(scores, dim=2)
        return image + read.reshape(batch, channels, height, width)


class TokenTransformer(nn.Module):
    """Pre-norm self-attention over the class rows, then a feed-forward layer (x2, GELU)."""

    def __init__(self, dim, heads=4):
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, tokens, bias):
        """tokens [B, K, d], bias [B, K] -> tokens [B, K, d]."""
        batch, rows, dim = tokens.shape
        qkv = self.qkv(self.norm_attention(tokens))
        q, k, v = qkv.reshape(batch, rows, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(2, 3) * (dim // self.heads) ** -0.5 + bias[:, None, None, :]
        mixed = (torch.softmax(scores, dim=-1) @ v).transpose(1, 2).reshape(batch, rows, dim)
        tokens = tokens + self.out(mixed)
        return tokens + self.feed_forward(tokens)


class TokenSummary(nn.Module):
    """An order-free summary [B, d] of the rows: attention pooling with one learned query."""

    def __init__(self, dim):
        super().__init__()
        self.score = nn.Linear(dim, 1)

    def forward(self, tokens, bias):
        weights = torch.softmax(self.score(tokens)[..., 0] + bias, dim=-1)
        return (weights[:, None, :] @ tokens)[:, 0]


class DynamicReLU(nn.Module):
    """y = max(a1 x + b1, a2 x + b2) per channel, coefficients from the token summary.

    Starts as a plain ReLU (a = 1, 0; b = 0).  Chen et al., "Dynamic ReLU", ECCV 2020, variant B.
    """

    def __init__(self, dim, channels):
        super().__init__()
        self.coefficients = nn.Sequential(
            nn.Linear(dim, dim // 2), nn.ReLU(), nn.Linear(dim // 2, 4 * channels))
        nn.init.zeros_(self.coefficients[-1].weight)
        nn.init.zeros_(self.coefficients[-1].bias)

    def forward(self, x, summary):
        """x [B, C, H, W], summary [B, d] -> [B, C, H, W]."""
        a1, a2, b1, b2 = torch.tanh(self.coefficients(summary))[..., None, None].chunk(4, dim=1)
        return torch.maximum(x * (1 + a1) + 0.5 * b1, x * a2 + 0.5 * b2)


class DynamicCNN(nn.Module):
    """Residual 1x1 -> dynamic ReLU -> 3x3 depthwise -> dynamic ReLU -> 1x1."""

    def __init__(self, channels, dim, expansion=2):
        super().__init__()
        hidden = channels * expansion
        self.expand = nn.Sequential(nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden))
        self.depthwise = nn.Sequential(
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False), nn.BatchNorm2d(hidden))
        self.reduce = nn.Sequential(nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.summary = TokenSummary(dim)
        self.relu1 = DynamicReLU(dim, hidden)
        self.relu2 = DynamicReLU(dim, hidden)

    def forward(self, image, tokens, bias):
        summary = self.summary(tokens, bias)
        x = self.relu1(self.expand(image), summary)
        x = self.relu2(self.depthwise(x), summary)
        return image + self.reduce(x)


class PlainCNN(nn.Module):
    """The CNN branch without text: the same layers with a plain ReLU (ablation rows)."""

    def __init__(self, channels, expansion=2):
        super().__init__()
        hidden = channels * expansion
        self.layers = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden), nn.ReLU(),
            nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, image):
        return image + self.layers(image)


class FusionBlock(nn.Module):
    """Bridge to text, transformer, CNN, bridge to image (paper.md, steps 1 to 4).

    The dynamic ReLU carries text into the image, so it belongs to the text-to-image
    bridge: with `text_to_image` off the CNN branch uses a plain ReLU and nothing of
    the text reaches the pixels.
    """

    def __init__(self, channels, dim, image_to_text=True, text_to_image=True):
        super().__init__()
        self.to_text = ImageToText(dim, channels) if image_to_text else None
        self.transformer = TokenTransformer(dim)
        self.cnn = DynamicCNN(channels, dim) if text_to_image else PlainCNN(channels)
        self.to_image = TextToImage(dim, channels) if text_to_image else None

    def forward(self, image, tokens, bias):
        """image [B, C, H, W], tokens [B, K, d], bias [B, K] -> the same two, updated."""
        if self.to_text is not None:
            tokens = self.to_text(tokens, image)
        tokens = self.transformer(tokens, bias)
        if self.to_image is None:
            return self.cnn(image), tokens
        return self.to_image(self.cnn(image, tokens, bias), tokens, bias), tokens


def double(x, reference):
    """x [B, C, h, w] at twice its size, bilinear, cut to the height and width of `reference`, the map one stride finer.

    Twice exactly: 360 rows are 23 at stride 16 and 12 at stride 32, and 12 stretched to 23 would shift the lower
    half of the picture by 16 pixels.
    """
    height, width = reference.shape[-2:]
    # Backbones that round sizes down leave too little.  Most round up, and what is not needed costs a millisecond.
    if 2 * x.shape[2] < height or 2 * x.shape[3] < width:
        x = F.pad(x, (0, 1, 0, 1), mode='replicate')
    return F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False)[..., :height, :width]
