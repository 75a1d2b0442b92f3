"""Upsampling of maps: learned convex upsampling of the logits from stride 4 to pixels, and doubling inside the pyramid.

The network predicts logits at stride 4.  A position of that map lies in the middle of its block of 4 x 4 pixels.  The
square between four positions is a cell.  A cell covers 16 pixels, four of each block::

      block (0, 0)  block (0, 1)
    +-------------+-------------+
    | .  .   .  . | .  .   .  . |
    | .  .   .  . | .  .   .  . |      A, B, C, D: positions, the corners 0, 1, 2, 3 of the cell
    |      A------+------B      |      #: the 16 pixels of the cell
    | .  . | #  # | #  # | .  . |
    | .  . | #  # | #  # | .  . |      logits(#) = a A + b B + c C + d D
    +------+------+------+------+      a, b, c, d = softmax of the 4 upsample logits of that pixel
    | .  . | #  # | #  # | .  . |
    | .  . | #  # | #  # | .  . |
    |      C------+------D      |
    | .  .   .  . | .  .   .  . |
    | .  .   .  . | .  .   .  . |
    +-------------+-------------+
      block (1, 0)  block (1, 1)

This is convex upsampling (Teed and Deng, "RAFT", ECCV 2020, Section 3.3), here over the four positions of bilinear
interpolation instead of nine.  A class that wins at all four corners also wins at every pixel between them, so
`postprocessing` can skip such cells.  The weights depend on the image, so a pole of one pixel's width keeps its edges.

Learned upsampling is an addition of ours.  It is not part of the method of arXiv 2310.07394, which `fusion` implements.
"""

import torch
from torch import nn
from torch.nn import functional as F

SCALE = 4   # stride of the logits in pixels


class UpsampleHead(nn.Module):
    """Predicts the upsample logits from the image's pixels and the pixel embeddings.

    The softmax over the four upsample logits of a pixel weighs the position above left of it, above right, below left
    and below right.  An untrained head gives bilinear interpolation.
    """

    def __init__(self, pixel_dim: int, dim: int) -> None:
        """Build the head.

        Args:
            pixel_dim: channels of the pixel embeddings.
            dim: channels inside the head.
        """
        super().__init__()
        self.image = nn.Conv2d(3, dim, SCALE, stride=SCALE, bias=False)
        self.pixels = nn.Conv2d(pixel_dim, dim, 1, bias=False)
        self.norm = nn.BatchNorm2d(dim)
        # The attribute names `around` and `scores` are keys of trained weights.
        self.around = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False), nn.BatchNorm2d(dim), nn.ReLU())
        self.scores = nn.Conv2d(dim, 4 * SCALE ** 2, 1)
        nn.init.zeros_(self.scores.weight)
        # A block begins in the middle of a cell, hence the roll by half a block.
        tile = bilinear_weights(SCALE).permute(2, 0, 1).roll((SCALE // 2, SCALE // 2), (1, 2))
        self.scores.bias = nn.Parameter(tile.log().flatten())

    def forward(self, images: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """Predict the upsample logits.

        Args:
            images: float [B, 3, H, W], in [-1, 1], RGB, H and W multiples of 4.
            pixels: pixel embeddings, float [B, pixel_dim, H/4, W/4].

        Returns:
            Upsample logits, float [B, 64, H/4, W/4].  Channel 16 c + 4 y + x belongs to corner c (0..3) of the pixel in
            row y (0..3) and column x (0..3) of a position's block, the order of `torch.nn.functional.pixel_shuffle`.
        """
        x = F.relu(self.norm(self.image(images) + self.pixels(pixels)))
        upsample_logits: torch.Tensor = self.scores(self.around(x))
        return upsample_logits


def bilinear_weights(scale: int, device: torch.device | None = None) -> torch.Tensor:
    """Bilinear weights of a cell's corners at its pixels.

    Args:
        scale: pixels along a side of the cell.
        device: where to make the tensor; None for the current default.

    Returns:
        Float [scale, scale, 4], in 0..1, summing to 1 over the corners; corners in the order of `UpsampleHead`.
    """
    fraction = (torch.arange(scale, device=device) + 0.5) / scale
    y, x = fraction[:, None], fraction[None, :]
    return torch.stack([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x], dim=-1)


def convex_upsample(logits: torch.Tensor, upsample_logits: torch.Tensor, phase: tuple[int, int] = (0, 0),
                    step: int = 1) -> torch.Tensor:
    """Upsample logits to every `step`-th pixel by learned weights.

    Args:
        logits: float [B, K, h, w], at stride 4.
        upsample_logits: float [B, 64, h, w], of `UpsampleHead`.
        phase: row and column of the first pixel, each in 0..step - 1.
        step: distance of the pixels along both axes: 1, 2 or 4.

    Returns:
        Float [B, K, 4h/step, 4w/step].
    """
    by_pixel = F.pixel_shuffle(upsample_logits, SCALE)[:, :, phase[0]::step, phase[1]::step]
    weights = torch.softmax(by_pixel.float(), dim=1)
    height, width = logits.shape[2:]
    padded = F.pad(logits, (1, 1, 1, 1), mode='replicate')   # beyond the border the edge repeats

    def term(corner: int) -> torch.Tensor:
        y, x = divmod(corner, 2)
        cells = padded[:, :, y:y + height + 1, x:x + width + 1]
        return expand_cells(cells, phase, step) * weights[:, corner:corner + 1]

    total = term(0)
    for corner in (1, 2, 3):   # one by one: at full size each term is as large as the answer
        total = total + term(corner)
    return total


def expand_cells(cells: torch.Tensor, phase: tuple[int, int], step: int) -> torch.Tensor:
    """Repeat one value per cell at the pixels that the cell covers.

    Args:
        cells: [B, K, h+1, w+1], one value per cell.
        phase: row and column of the first pixel, each in 0..step - 1.
        step: distance of the pixels along both axes: 1, 2 or 4.

    Returns:
        [B, K, 4h/step, 4w/step].
    """
    for dim, first in ((2, phase[0]), (3, phase[1])):
        count = -(-((cells.shape[dim] - 1) * SCALE - first) // step)
        cells = cells.repeat_interleave(SCALE // step, dim).narrow(dim, (first + SCALE // 2) // step, count)
    return cells


def upsample2x(x: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Double a map bilinearly and crop it to the map that is one stride finer.

    The factor is exactly 2.  An image of 360 rows has 23 rows at stride 16 and 12 at stride 32; resizing 12 to 23 would
    shift the lower half of the image by 16 pixels.

    Args:
        x: float [B, C, h, w].
        reference: the finer map, [..., H, W], with H in 2h - 1..2h + 1 and W in 2w - 1..2w + 1.

    Returns:
        Float [B, C, H, W].
    """
    height, width = reference.shape[-2:]
    # Backbones that round sizes down leave one row or column too few.  Most round up, and padding costs a millisecond.
    if 2 * x.shape[2] < height or 2 * x.shape[3] < width:
        x = F.pad(x, (0, 1, 0, 1), mode='replicate')
    return F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False)[..., :height, :width]
