"""From logits at stride 4 to pixels: every pixel mixes the logits of the four positions around it.

The network says with which weights (convex upsampling as in Teed and Deng, "RAFT", ECCV 2020, here over the four
positions of bilinear interpolation).  A class that wins at all four then still wins between them, so the cost hardly
grows with the number of words; and a pole one pixel wide ends where the picture says.
"""

import torch
from torch import nn
from torch.nn import functional as F

SCALE = 4


class Upsampler(nn.Module):
    """Scores of the four positions around every pixel, from the picture's own pixels and their embeddings.

    The softmax of a pixel's four scores weighs the position above left of it, above right, below left, below right.
    """

    def __init__(self, pixel_dim, dim):
        super().__init__()
        self.image = nn.Conv2d(3, dim, SCALE, stride=SCALE, bias=False)
        self.pixels = nn.Conv2d(pixel_dim, dim, 1, bias=False)
        self.norm = nn.BatchNorm2d(dim)
        self.around = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False), nn.BatchNorm2d(dim), nn.ReLU())
        self.scores = nn.Conv2d(dim, 4 * SCALE ** 2, 1)
        nn.init.zeros_(self.scores.weight)   # a network that knows nothing yet interpolates bilinearly
        # A pixel's block begins in the middle of a cell.
        tile = bilinear_weights(SCALE).permute(2, 0, 1).roll((SCALE // 2, SCALE // 2), (1, 2))
        self.scores.bias.data = tile.log().flatten()

    def forward(self, images, pixels):
        """images [B, 3, H, W], pixels [B, pixel_dim, H/4, W/4] -> scores [B, 64, H/4, W/4].

        Channel 16 c + 4 y + x belongs to corner c of the pixel in row y and column x of a position's 4 x 4 block;
        `shuffle` brings them to the pixels.
        """
        x = F.relu(self.norm(self.image(images) + self.pixels(pixels)))
        return self.scores(self.around(x))


def shuffle(scores):
    """Scores [B, 64, h, w] as the pixels' own, [B, 4, 4h, 4w]."""
    return F.pixel_shuffle(scores, SCALE)


def bilinear_weights(scale, device=None):
    """[scale, scale, 4]: the shares of a cell's corners in its pixels; corners as in `Upsampler`."""
    fraction = (torch.arange(scale, device=device) + 0.5) / scale
    y, x = fraction[:, None], fraction[None, :]
    return torch.stack([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x], dim=-1)


def mix(logits, scores, phase=(0, 0), step=1):
    """Logits [B, K, h, w] at every `step`-th pixel (1, 2 or 4), from `phase` on, by scores [B, 64, h, w].

    Returns [B, K, 4h/step, 4w/step].
    """
    weights = torch.softmax(shuffle(scores)[:, :, phase[0]::step, phase[1]::step].float(), dim=1)
    height, width = logits.shape[2:]
    padded = F.pad(logits, (1, 1, 1, 1), mode='replicate')
    total = 0
    for corner, (y, x) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        cells = padded[:, :, y:y + height + 1, x:x + width + 1]
        total = total + spread(cells, phase, step) * weights[:, corner:corner + 1]
    return total


def spread(cells, phase, step):
    """Values of cells [B, K, h+1, w+1] at the pixels that they cover: every `step`-th from `phase` on."""
    for dim, first in ((2, phase[0]), (3, phase[1])):
        count = -(-((cells.shape[dim] - 1) * SCALE - first) // step)
        cells = cells.repeat_interleave(SCALE // step, dim).narrow(dim, (first + SCALE // 2) // step, count)
    return cells
