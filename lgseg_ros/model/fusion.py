"""Two-way fusion of image features and text embeddings: a CNN branch and a transformer branch joined by two bridges.

This is our reading of the feature fusion module of "CLIP for Lightweight Semantic Segmentation" (Jin and Yang, arXiv
2310.07394).  The paper's abstract states the structure: a CNN for the image encoder's feature map in parallel with a
transformer for the text embeddings, and a two-way bridge in between.  The equations follow the block with this
structure in "Mobile-Former" (Chen et al., CVPR 2022, Section 3)::

    feature map X [B, C, H, W]                     tokens T [B, K, d], one per text embedding
           |                                              |
           |---------- 1. ImageToText ------------------->+      T += Wo softmax(T Wq X^T / sqrt(C / h)) X
           |                                              |
           |                                     2. TokenTransformer
           |                                              |
     3. DynamicCNN <---------- TokenSummary --------------|      1x1, 3x3 depthwise, 1x1, with dynamic ReLU
           |                                              |
           +<---------------- 4. TextToImage -------------|      X += softmax(X (T Wk)^T / sqrt(C / h)) (T Wv)
           |                                              |
           v                                              v

One thing differs from Mobile-Former.  Its dynamic ReLU reads the first token, so the order of the classes would matter.
Ours reads a summary of all tokens that does not depend on their order.

Shapes: B images, K text embeddings, d token width, C channels, H x W map, h heads.
"""

import torch
from torch import nn

MASKED = -1e4  # added to the attention logit of a padded token; finite so that fp16 stays finite


def padding_bias(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Additive attention bias that turns padded tokens off.

    Args:
        mask: bool [B, K], False for padded tokens.
        like: tensor with the dtype to return.

    Returns:
        [B, K]: 0 for real tokens, `MASKED` for padded ones.
    """
    return (~mask).to(like.dtype) * MASKED


class ImageToText(nn.Module):
    """Bridge T += Wo softmax(T Wq X^T / sqrt(C / h)) X; keys and values are X itself."""

    def __init__(self, token_dim: int, channels: int, heads: int = 2) -> None:
        """Build the bridge; `channels` is a multiple of `heads`."""
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(token_dim, channels)
        self.out = nn.Linear(channels, token_dim)

    def forward(self, tokens: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Update the tokens [B, K, d] by the feature map [B, C, H, W]."""
        batch, count, _ = tokens.shape
        width = features.shape[1] // self.heads
        pixels = features.reshape(batch, self.heads, width, -1)
        query = self.query(tokens).reshape(batch, count, self.heads, width).transpose(1, 2)
        weights = torch.softmax(query @ pixels * width ** -0.5, dim=-1)
        attended = (weights @ pixels.transpose(2, 3)).transpose(1, 2).reshape(batch, count, -1)
        updated: torch.Tensor = tokens + self.out(attended)
        return updated


class TextToImage(nn.Module):
    """Bridge X += softmax(X (T Wk)^T / sqrt(C / h)) (T Wv)."""

    def __init__(self, token_dim: int, channels: int, heads: int = 2) -> None:
        """Build the bridge; `channels` is a multiple of `heads`."""
        super().__init__()
        self.heads = heads
        self.key = nn.Linear(token_dim, channels)
        self.value = nn.Linear(token_dim, channels)

    def forward(self, features: torch.Tensor, tokens: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Update the feature map [B, C, H, W] by the tokens [B, K, d]; bias [B, K] is of `padding_bias`."""
        batch, channels, height, width = features.shape
        head = channels // self.heads
        pixels = features.reshape(batch, self.heads, head, -1)
        key = self.key(tokens).reshape(batch, -1, self.heads, head).transpose(1, 2)
        value = self.value(tokens).reshape(batch, -1, self.heads, head).permute(0, 2, 3, 1)
        attention = key @ pixels * head ** -0.5 + bias[:, None, :, None]
        attended: torch.Tensor = value @ torch.softmax(attention, dim=2)
        return features + attended.reshape(batch, channels, height, width)


class TokenTransformer(nn.Module):
    """Pre-norm self-attention over the tokens, then a feed-forward layer (x2, GELU)."""

    def __init__(self, dim: int, heads: int = 4) -> None:
        """Build the layer; `dim` is a multiple of `heads`."""
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, tokens: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Update the tokens [B, K, d]; bias [B, K] is of `padding_bias`."""
        batch, count, dim = tokens.shape
        qkv = self.qkv(self.norm_attention(tokens))
        q, k, v = qkv.reshape(batch, count, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        attention = q @ k.transpose(2, 3) * (dim // self.heads) ** -0.5 + bias[:, None, None, :]
        attended = (torch.softmax(attention, dim=-1) @ v).transpose(1, 2).reshape(batch, count, dim)
        tokens = tokens + self.out(attended)
        updated: torch.Tensor = tokens + self.feed_forward(tokens)
        return updated


class TokenSummary(nn.Module):
    """A summary of the tokens that does not depend on their order: attention pooling with one learned query."""

    def __init__(self, dim: int) -> None:
        """Build the pooling of tokens of width `dim`."""
        super().__init__()
        self.score = nn.Linear(dim, 1)

    def forward(self, tokens: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Pool tokens [B, K, d] to [B, d]; bias [B, K] is of `padding_bias`."""
        weights = torch.softmax(self.score(tokens)[..., 0] + bias, dim=-1)
        return (weights[:, None, :] @ tokens)[:, 0]


class DynamicReLU(nn.Module):
    """y = max(a1 x + b1, a2 x + b2) per channel, with coefficients from the token summary.

    Starts as a plain ReLU (a = 1, 0; b = 0).  Chen et al., "Dynamic ReLU", ECCV 2020, variant B.
    """

    def __init__(self, dim: int, channels: int) -> None:
        """Build the layer for `channels` channels and summaries of width `dim`."""
        super().__init__()
        first, last = nn.Linear(dim, dim // 2), nn.Linear(dim // 2, 4 * channels)
        self.coefficients = nn.Sequential(first, nn.ReLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: torch.Tensor, summary: torch.Tensor) -> torch.Tensor:
        """Activate x [B, C, H, W] by summary [B, d]."""
        a1, a2, b1, b2 = torch.tanh(self.coefficients(summary))[..., None, None].chunk(4, dim=1)
        return torch.maximum(x * (1 + a1) + 0.5 * b1, x * a2 + 0.5 * b2)


class DynamicCNN(nn.Module):
    """The CNN branch: residual 1x1 -> dynamic ReLU -> 3x3 depthwise -> dynamic ReLU -> 1x1."""

    def __init__(self, channels: int, dim: int, expansion: int = 2) -> None:
        """Build the branch for maps of `channels` channels and tokens of width `dim`."""
        super().__init__()
        hidden = channels * expansion
        self.expand = nn.Sequential(nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden))
        self.depthwise = nn.Sequential(
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False), nn.BatchNorm2d(hidden))
        self.reduce = nn.Sequential(nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.summary = TokenSummary(dim)
        self.relu1 = DynamicReLU(dim, hidden)
        self.relu2 = DynamicReLU(dim, hidden)

    def forward(self, features: torch.Tensor, tokens: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Update the feature map [B, C, H, W]; tokens [B, K, d], bias [B, K] of `padding_bias`."""
        summary = self.summary(tokens, bias)
        x = self.relu1(self.expand(features), summary)
        x = self.relu2(self.depthwise(x), summary)
        updated: torch.Tensor = features + self.reduce(x)
        return updated


class PlainCNN(nn.Module):
    """The CNN branch without text, for ablations: the same layers with a plain ReLU."""

    def __init__(self, channels: int, expansion: int = 2) -> None:
        """Build the branch for maps of `channels` channels."""
        super().__init__()
        hidden = channels * expansion
        self.layers = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden), nn.ReLU(),
            nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Update the feature map [B, C, H, W]."""
        updated: torch.Tensor = features + self.layers(features)
        return updated


class FusionBlock(nn.Module):
    """One block of the fusion module: steps 1 to 4 of the drawing above.

    The dynamic ReLU carries text into the image, so it belongs to the text-to-image bridge.  With `text_to_image` off
    the CNN branch uses a plain ReLU, and no text reaches the pixels.
    """

    def __init__(self, channels: int, dim: int, image_to_text: bool = True, text_to_image: bool = True) -> None:
        """Build the block.

        Args:
            channels: C, of the feature map; a multiple of 2.
            dim: d, the width of the tokens; a multiple of 4.
            image_to_text: whether the tokens attend to the image.
            text_to_image: whether the pixels attend to the tokens.
        """
        super().__init__()
        self.to_text = ImageToText(dim, channels) if image_to_text else None
        self.transformer = TokenTransformer(dim)
        self.cnn = DynamicCNN(channels, dim) if text_to_image else PlainCNN(channels)
        self.to_image = TextToImage(dim, channels) if text_to_image else None

    def forward(self, features: torch.Tensor, tokens: torch.Tensor,
                bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Update both branches.

        Args:
            features: float [B, C, H, W].
            tokens: float [B, K, d].
            bias: float [B, K], of `padding_bias`.

        Returns:
            The feature map [B, C, H, W] and the tokens [B, K, d].
        """
        if self.to_text is not None:
            tokens = self.to_text(tokens, features)
        tokens = self.transformer(tokens, bias)
        if self.to_image is None:
            return self.cnn(features), tokens
        return self.to_image(self.cnn(features, tokens, bias), tokens, bias), tokens
