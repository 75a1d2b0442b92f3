"""From logits at stride 4 to class ids and confidence at full size, at a cost that hardly grows with the vocabulary.

Upsampling all K logit maps to full size costs many times the network once K is large.  It is not needed.  Between four
neighbouring positions of the logits (a cell, 4 x 4 pixels; see the drawing in `upsampling`) whose best classes agree,
the same class wins at every pixel, because each pixel is a convex combination of the four corners.  Only cells whose
corners disagree, mixed cells, are upsampled, and there only the text embeddings that win at one of the corners::

    best class, h x w       mixed cells M, (h+1) x (w+1)       ids, 4h x 4w
    (r, c, s: classes)

        r   r   r   s             .   .   .   M   .            at the 16 pixels of a cell without M:
                                                               the class of its corners
        r   r   c   s             .   .   M   M   .

        r   c   c   c             .   M   M   M   M            at the 16 pixels of a cell with M:
                                                               the best of its corners' text embeddings,
        r   c   c   c             .   M   .   .   .            at most four

                                  .   M   .   .   .

Cells at the border reach beyond the map.  There the edge repeats, and only the pixels inside the image exist.  What
this approximation leaves out is a text embedding that wins inside a cell but at none of its corners.

This is an addition of ours.  It is not part of the method of arXiv 2310.07394, which `fusion` implements.

Shapes: B images, K text embeddings, h x w positions, P = h w, N cells.  Cells are the last dimension everywhere: long
rows of memory are what a CPU's vector units need.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F

from ..utils.label_values import UNLABELLED
from .upsampling import SCALE, bilinear_weights


class Cells(NamedTuple):
    """Where the corners and pixels of N cells are; all int64."""

    corners: torch.Tensor     # [4, N] flat positions in B*h*w: top left, top right, bottom left, bottom right
    pixels: torch.Tensor      # [16, N] flat positions in the image, B*4h*4w
    subpixels: torch.Tensor   # [4, N] flat index in B*h*w*4: which 2 x 2 pixels of a corner's block are the cell's


class CellAxis(NamedTuple):
    """Where cells are along one axis of the map; all int64."""

    positions: tuple[torch.Tensor, torch.Tensor]   # [N] each: before and after the cell
    halves: tuple[torch.Tensor, torch.Tensor]      # [N] each: which half of their blocks lies in the cell, 0 or 1
    pixels: torch.Tensor                           # [4, N] the cell's pixels


def find_cells(indices: torch.Tensor, shape: tuple[int, int]) -> Cells:
    """Corners and pixels of some cells.

    Args:
        indices: int64 [3, N]: image, row and column of a cell, of B x (h+1) x (w+1).
        shape: (h, w) of the logits.

    Returns:
        The `Cells`.
    """
    height, width = shape
    positions = height * width
    image, y, x = indices[0], indices[1], indices[2]
    (above, below), (y_near, y_far), embeddings = _cells_along(y, height)
    (left, right), (x_near, x_far), columns = _cells_along(x, width)
    corners = image * positions + torch.stack([above * width + left, above * width + right,
                                               below * width + left, below * width + right])
    subpixels = torch.stack([2 * y_near + x_near, 2 * y_near + x_far, 2 * y_far + x_near, 2 * y_far + x_far])
    pixels = (embeddings[:, None] * (width * SCALE) + columns).flatten(0, 1) + image * (16 * positions)
    return Cells(corners, pixels, 4 * corners + subpixels)


def _cells_along(cell: torch.Tensor, count: int) -> CellAxis:
    """Find the positions, block halves and pixels of cells along one axis.

    For three positions::

        pixel      0  1   2  3   4  5   6  7   8  9  10 11
        block    [ 0  0   0  0 ][1  1   1  1 ][2  2   2  2 ]
        half       0  0   1  1   0  0   1  1   0  0   1  1
        position        0             1             2
        cell         0  |      1      |      2      |  3

    Cell 1 lies between position 0 (its far half, 1) and position 1 (its near half, 0).  Beyond the border is neither
    position nor pixel.  The position inside then stands for both sides, and its half inside the image for both halves:
    the two pixels of cells 0 and 3 are computed twice, with the same result.

    Args:
        cell: int64 [N], 0..count.
        count: positions along the axis.
    """
    first, last = cell == 0, cell == count
    before, after = (cell - 1).clamp(min=0), cell.clamp(max=count - 1)
    near, far = 1 - first.to(cell.dtype), last.to(cell.dtype)
    half = SCALE // 2
    step = torch.arange(half, device=cell.device)[:, None]
    pixels = torch.cat([position * SCALE + which * half + step for position, which in ((before, near), (after, far))])
    return CellAxis((before, after), (near, far), pixels)


def mixed_cells(ids: torch.Tensor) -> torch.Tensor:
    """Whether the corners of a cell differ: ids [B, h, w] -> bool [B, h+1, w+1]."""
    ids = torch.cat([ids[:, :1], ids, ids[:, -1:]], dim=1)
    ids = torch.cat([ids[:, :, :1], ids, ids[:, :, -1:]], dim=2)
    first = ids[:, :-1, :-1]
    return (ids[:, :-1, 1:] != first) | (ids[:, 1:, :-1] != first) | (ids[:, 1:, 1:] != first)


def winners(logits: torch.Tensor, class_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Best text embedding, its class id and its class's probability at every position.

    Args:
        logits: fp32 [B, K, P], cosine / tau, so at most 1 / 0.07, far from where their exponentials overflow.
        class_ids: integer [K], class id of each text embedding.

    Returns:
        Index of the best text embedding int64 [B, P], class id [B, P], and probability fp32 [B, P] in 0..1; the
        probabilities of the text embeddings of one class are summed.
    """
    best = logits.argmax(dim=1)
    ids = class_ids[best]
    exponentials = torch.exp(logits)
    own = exponentials * (class_ids[None, :, None] == ids[:, None]).to(exponentials.dtype)
    # In ONNX Runtime a product with ones is faster than a sum over the text embeddings.
    ones = torch.ones_like(exponentials[:, :, :1]).transpose(1, 2)
    return best, ids, ((ones @ own) / (ones @ exponentials))[:, 0]


def _best_inside(values: list[torch.Tensor], best: torch.Tensor,
                 ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose among the corners' text embeddings at the pixels of mixed cells.

    Args:
        values: 4 x fp32 [16, N], the logits of the four corners' text embeddings at the pixels.
        best: int64 [4, N], the corners' text embeddings.
        ids: [4, N], their class ids.

    Returns:
        Class id [16, N], and its probability fp32 [16, N] among these text embeddings.
    """
    highest, won = values[0], ids[0].expand_as(values[0])
    for value, own in zip(values[1:], ids[1:], strict=True):
        won = torch.where(value > highest, own, won)
        highest = torch.maximum(value, highest)
    total = torch.ones_like(highest)
    for corner, value in enumerate(values):
        rival = ids[corner] != won
        for earlier in range(corner):   # a text embedding that wins at several corners counts once
            rival = rival & (best[earlier] != best[corner])
        total = total + rival.to(highest.dtype) * torch.exp(value - highest)
    return won, 1 / total


def logits_to_mask(logits: torch.Tensor, class_ids: torch.Tensor, confidence_threshold: torch.Tensor,
                   upsample_logits: torch.Tensor | None = None,
                   every_cell: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Class ids and confidence at 4 times the size of the logits.

    Args:
        logits: fp32 [B, K, h, w], cosine / tau.
        class_ids: integer [K], class id of each text embedding, 0..254.
        confidence_threshold: scalar tensor, 0..1; pixels with a lower confidence become `UNLABELLED`.
        upsample_logits: float [B, 64, h, w] of `UpsampleHead`; None to interpolate bilinearly.
        every_cell: upsample all cells instead of the mixed ones.  The answer is the same, and no shape depends on the
            data, as the fixed graph of a GPU needs it.

    Returns:
        Ids and confidence, uint8 [B, 4h, 4w]; confidence 255 is probability 1.
    """
    batch, _, height, width = logits.shape
    shape = height, width
    best, ids, probability = winners(logits.flatten(2), class_ids)
    ids, probability = ids.unflatten(1, shape), probability.unflatten(1, shape)
    labels = upsample_nearest(ids.to(torch.int32), height, width)
    mixed = mixed_cells(ids)
    # From the logits, whose size stays dynamic in an export; the exporter takes the size of `mixed` for fixed.
    grid = batch, height + 1, width + 1
    cells = find_cells(all_cells(grid, logits.device) if every_cell else mixed.nonzero().T, shape)
    corner_best = best.flatten()[cells.corners]
    values = interpolate_corners(corner_logits(logits, cells, corner_best),
                                 corner_weights(upsample_logits, cells, logits))
    inside, confidence = _best_inside(values, corner_best, class_ids[corner_best].to(torch.int32))
    # At most as confident as the context, the corners around the pixel.
    context = bilinear_weights(SCALE, logits.device).to(logits.dtype).flatten(0, 1)
    confidence = torch.minimum(confidence, context @ probability.flatten()[cells.corners])
    probability = F.interpolate(probability[:, None], scale_factor=SCALE, mode='bilinear')[:, 0]
    if every_cell:
        inside, confidence = (cells_to_image(part.T, grid) for part in (inside, confidence))
        mixed = cells_to_image(mixed.reshape(-1, 1).expand(-1, SCALE * SCALE), grid)
        labels = torch.where(mixed, inside, labels)
        probability = torch.where(mixed, confidence, probability)
    else:
        size = batch, height * SCALE, width * SCALE
        labels = scatter(labels, cells.pixels, inside).reshape(size)
        probability = scatter(probability, cells.pixels, confidence).reshape(size)
    labels = torch.where(probability < confidence_threshold, torch.full_like(labels, UNLABELLED), labels)
    return labels.to(torch.uint8), (probability * 255 + 0.5).to(torch.uint8)


def corner_logits(logits: torch.Tensor, cells: Cells, corner_best: torch.Tensor) -> torch.Tensor:
    """Logits of the corners' best text embeddings at the corners of cells.

    Args:
        logits: [B, K, h, w].
        cells: N cells.
        corner_best: int64 [4, N], best text embedding at each corner.

    Returns:
        [4, 4, N]: corner, text embedding, cell.
    """
    count, positions = logits.shape[1], logits.shape[2] * logits.shape[3]
    # Text embedding k at position p of image b is at (b * count + k) * positions + p.
    start = cells.corners + cells.corners // positions * ((count - 1) * positions)
    return logits.flatten()[start[:, None] + corner_best * positions]


def corner_weights(upsample_logits: torch.Tensor | None, cells: Cells, like: torch.Tensor) -> torch.Tensor:
    """Weights of the corners at the pixels of cells.

    Args:
        upsample_logits: float [B, 64, h, w] of `UpsampleHead`; None for bilinear weights.
        cells: N cells.
        like: tensor with the dtype and device to return.

    Returns:
        [4, 16, N]: corner, pixel, cell, in 0..1, summing to 1 over the corners; [4, 16, 1] where all cells are alike.
    """
    if upsample_logits is None:
        return bilinear_weights(SCALE, like.device).to(like.dtype).flatten(0, 1).T[..., None]
    # The 16 upsample logits of 2 x 2 pixels side by side: reading them one by one from all over the map takes ten
    # times as long.
    order = torch.arange(4 * SCALE ** 2, device=upsample_logits.device).reshape(4, 2, 2, 2, 2)
    order = order.permute(1, 3, 0, 2, 4).flatten()
    table = upsample_logits[:, order].flatten(2).transpose(1, 2).reshape(-1, SCALE ** 2)
    found = table[cells.subpixels].to(like.dtype).transpose(1, 2)       # [4, 16, N]: subpixels; corner, y, x
    found = found.reshape(2, 2, 4, 2, 2, -1).permute(2, 0, 3, 1, 4, 5).reshape(4, SCALE ** 2, -1)
    weights = torch.exp(found - found.amax(dim=0))
    return weights / (weights[0] + weights[1] + weights[2] + weights[3])


def interpolate_corners(values: torch.Tensor, weights: torch.Tensor) -> list[torch.Tensor]:
    """Logits at the pixels of cells, as 4 x [16, N], from `corner_logits` [4, 4, N] and `corner_weights` [4, 16, N]."""
    def at_pixels(embedding: int) -> torch.Tensor:
        total = weights[0] * values[0, embedding]
        for corner in range(1, 4):
            total = total + weights[corner] * values[corner, embedding]
        return total
    return [at_pixels(embedding) for embedding in range(4)]


def all_cells(grid: tuple[int, int, int], device: torch.device) -> torch.Tensor:
    """Indices [3, N] of all cells of grid (B, h+1, w+1); unlike `nonzero` of ones its shape depends on no data."""
    images, height, width = grid
    index = torch.arange(images * height * width, device=device)
    return torch.stack([index // (height * width), index // width % height, index % width])


def upsample_nearest(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Repeat each value: [B, height, width] -> [B, 4 height, 4 width]."""
    x = x[:, :, None, :, None].expand(-1, -1, SCALE, -1, SCALE)
    return x.reshape(-1, height * SCALE, width * SCALE)


def scatter(image: torch.Tensor, pixels: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """A flat copy of `image` with `values` [16, N] at the flat positions `pixels` [16, N]."""
    return image.flatten().index_put((pixels.flatten(),), values.flatten())


def cells_to_image(cells: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
    """Values [B * (h+1) * (w+1), 16] of all cells of grid (B, h+1, w+1) -> image [B, 4h, 4w]."""
    batch, height, width = grid
    cells = cells.reshape(batch, height, width, SCALE, SCALE).permute(0, 1, 3, 2, 4)
    image = cells.reshape(batch, height * SCALE, width * SCALE)
    half = SCALE // 2
    return image[:, half:-half, half:-half]
