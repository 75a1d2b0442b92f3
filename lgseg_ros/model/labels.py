"""From row logits at stride 4 to class ids and confidence at full size, at a cost that hardly grows with words.

Interpolating every row's logits to full size costs many times the network once there
are many rows.  It is not needed: between four neighbouring logit positions (a cell)
whose winners agree, the same class wins everywhere, because bilinear interpolation is
a convex mix.  Only cells whose corners disagree are interpolated, and there only the
rows that win at one of the corners.  What this leaves out is a row that wins inside a
cell and at none of its corners.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F

from .upsample import SCALE, bilinear_weights

UNLABELLED = 255


class Cells(NamedTuple):
    """Squares between four logit positions, and beyond them at the border, where the edge repeats.

    Cells are the last dimension everywhere here: long rows are what a CPU's vector units want.
    """

    corners: torch.Tensor   # [4, N] flat positions in B*h*w: top left, top right, bottom left, bottom right
    pixels: torch.Tensor    # [16, N] flat positions in the picture, B*4h*4w
    quarters: torch.Tensor  # [4, N] flat places of the scores of the pixels nearest to each corner, in B*h*w*4


def find_cells(chosen, shape):
    """Corners and pixels of chosen cells.

    chosen: [3, N], picture, row and column of a cell, of B x (h+1) x (w+1); shape: (h, w) of the logits.
    """
    height, width = shape
    places = height * width
    picture, y, x = chosen[0], chosen[1], chosen[2]
    (above, below), (upper, lower), down = _along(y, height)
    (left, right), (hither, thither), across = _along(x, width)
    corners = picture * places + torch.stack([above * width + left, above * width + right,
                                              below * width + left, below * width + right])
    quarters = torch.stack([2 * upper + hither, 2 * upper + thither, 2 * lower + hither, 2 * lower + thither])
    pixels = (down[:, None] * (width * SCALE) + across).flatten(0, 1) + picture * (16 * places)
    return Cells(corners, pixels, 4 * corners + quarters)


def _along(cell, count):
    """Along one side: the positions before and behind a cell, which halves of their blocks lie in it, its four pixels.

    Beyond the border there is neither position nor pixel.  The position on this side then stands for both, and its
    half that is in the picture for both halves: two pixels are worked out twice, alike.
    """
    first, last = cell == 0, cell == count
    before, behind = (cell - 1).clamp(min=0), cell.clamp(max=count - 1)
    halves = 1 - first.to(cell.dtype), last.to(cell.dtype)
    half = SCALE // 2
    step = torch.arange(half, device=cell.device)[:, None]
    pixels = torch.cat([place * SCALE + which * half + step for place, which in zip((before, behind), halves)])
    return (before, behind), halves, pixels


def mixed_cells(ids):
    """Whether a cell's corners differ; ids: [B, h, w] -> bool [B, h+1, w+1]."""
    ids = torch.cat([ids[:, :1], ids, ids[:, -1:]], dim=1)
    ids = torch.cat([ids[:, :, :1], ids, ids[:, :, -1:]], dim=2)
    first = ids[:, :-1, :-1]
    return (ids[:, :-1, 1:] != first) | (ids[:, 1:, :-1] != first) | (ids[:, 1:, 1:] != first)


def winners(logits, row_ids):
    """Best row, its class id and its class's probability at every position.

    logits: fp32 [B, K, P], cosine / tau, so never beyond 1 / 0.07 and far from where their exponentials overflow;
    row_ids: [K].  Returns row [B, P], id [B, P], probability [B, P]; rows of one class add up.
    """
    row = logits.argmax(dim=1)
    ids = row_ids[row]
    share = torch.exp(logits)
    own = share * (row_ids[None, :, None] == ids[:, None]).to(share.dtype)
    # In ONNX Runtime a product with ones is faster than a sum over rows.
    ones = torch.ones_like(share[:, :, :1]).transpose(1, 2)
    return row, ids, ((ones @ own) / (ones @ share))[:, 0]


def _resolve(values, rows, ids):
    """Winner inside mixed cells.

    values: 4 x [16, N], the logits of the four corners' rows at the pixels; rows, ids: [4, N].
    Returns ids [16, N] and probability [16, N] among those rows.
    """
    best, won = values[0], ids[0].expand_as(values[0])
    for value, own in zip(values[1:], ids[1:]):
        won = torch.where(value > best, own, won)
        best = torch.maximum(value, best)
    total = torch.ones_like(best)
    for corner, value in enumerate(values):
        rival = ids[corner] != won
        for earlier in range(corner):   # a row that wins at several corners counts once
            rival = rival & (rows[earlier] != rows[corner])
        total = total + rival.to(best.dtype) * torch.exp(value - best)
    return won, 1 / total


def label_image(logits, row_ids, threshold, scores=None, every_cell=False):
    """Class ids and confidence at 4 times the logits' size.

    logits: [B, K, h, w]; row_ids: [K] integer class id per row, 0..254;
    threshold: scalar tensor 0..1, pixels less confident become 255;
    scores: [B, 64, h, w] of `Upsampler`, None to interpolate bilinearly.
    every_cell: interpolate all cells instead of the mixed ones; the same answer without
    shapes that depend on the data, which is what a GPU's fixed graph wants.
    Returns ids and confidence, uint8 [B, 4h, 4w]; confidence 255 is probability 1.
    """
    batch, _, height, width = logits.shape
    shape = height, width
    row, ids, chance = winners(logits.flatten(2), row_ids)
    ids, chance = ids.unflatten(1, shape), chance.unflatten(1, shape)
    labels = enlarge(ids.to(torch.int32), height, width)
    mixed = mixed_cells(ids)
    # Of the logits, whose size stays open in an export; that of `mixed` the exporter takes for fixed.
    grid = batch, height + 1, width + 1
    cells = find_cells(all_cells(grid, logits.device) if every_cell else mixed.nonzero().T, shape)
    rows4 = row.flatten()[cells.corners]
    values = mixed_logits(corner_logits(logits, cells, rows4), weights_of(scores, cells, logits))
    inside, certain = _resolve(values, rows4, row_ids[rows4].to(torch.int32))
    # Nowhere more certain than the neighbourhood.
    around = bilinear_weights(SCALE, logits.device).to(logits.dtype).flatten(0, 1)
    certain = torch.minimum(certain, around @ chance.flatten()[cells.corners])
    chance = F.interpolate(chance[:, None], scale_factor=SCALE, mode='bilinear')[:, 0]
    if every_cell:
        inside, certain = (blocks_to_image(part.T, grid) for part in (inside, certain))
        mixed = blocks_to_image(mixed.reshape(-1, 1).expand(-1, SCALE * SCALE), grid)
        labels = torch.where(mixed, inside, labels)
        chance = torch.where(mixed, certain, chance)
    else:
        size = batch, height * SCALE, width * SCALE
        labels = put(labels, cells.pixels, inside).reshape(size)
        chance = put(chance, cells.pixels, certain).reshape(size)
    labels = torch.where(chance < threshold, torch.full_like(labels, UNLABELLED), labels)
    return labels.to(torch.uint8), (chance * 255 + 0.5).to(torch.uint8)


def corner_logits(logits, cells, rows4):
    """Logits [corner, row, N] that the rows [4, N] winning at a cell's corners have there."""
    count, places = logits.shape[1], logits.shape[2] * logits.shape[3]
    # Row r at place p of picture b is at (b * count + r) * places + p.
    start = cells.corners + cells.corners // places * ((count - 1) * places)
    return logits.flatten()[start[:, None] + rows4 * places]


def weights_of(scores, cells, like):
    """Shares [4, 16, N] of the corners in the pixels of cells, or [4, 16, 1] for all alike."""
    if scores is None:
        return bilinear_weights(SCALE, like.device).to(like.dtype).flatten(0, 1).T[..., None]
    # A quarter's 16 scores side by side: reading them one by one from all over the map takes ten times as long.
    order = torch.arange(4 * SCALE ** 2, device=scores.device).reshape(4, 2, 2, 2, 2).permute(1, 3, 0, 2, 4).flatten()
    table = scores[:, order].flatten(2).transpose(1, 2).reshape(-1, SCALE ** 2)
    found = table[cells.quarters].to(like.dtype).transpose(1, 2)        # [4, 16, N]: quarter; corner, y, x
    found = found.reshape(2, 2, 4, 2, 2, -1).permute(2, 0, 3, 1, 4, 5).reshape(4, SCALE ** 2, -1)
    shares = torch.exp(found - found.amax(dim=0))
    return shares / (shares[0] + shares[1] + shares[2] + shares[3])


def mixed_logits(corner, weights):
    """Logits at the pixels, one [16, N] for each of the four rows; corner [4, 4, N]; weights as `weights_of`."""
    return [sum(weights[place] * corner[place, row] for place in range(4)) for row in range(4)]


def all_cells(grid, device):
    """Indices [3, N] of all cells of grid (B, h+1, w+1); unlike `nonzero` of ones its shape depends on no data."""
    pictures, down, across = grid
    index = torch.arange(pictures * down * across, device=device)
    return torch.stack([index // (down * across), index // across % down, index % across])


def enlarge(x, height, width):
    """x [B, height, width] -> [B, 4 height, 4 width], each value repeated."""
    x = x[:, :, None, :, None].expand(-1, -1, SCALE, -1, SCALE)
    return x.reshape(-1, height * SCALE, width * SCALE)


def put(image, pixels, values):
    """`image`, flat, with `values` [16, N] at the flat positions `pixels` [16, N]."""
    return image.flatten().index_put((pixels.flatten(),), values.flatten())


def blocks_to_image(blocks, shape):
    """Values [B * (h+1) * (w+1), 16] of all cells -> picture [B, 4h, 4w].

    shape: (B, h+1, w+1).
    """
    batch, height, width = shape
    blocks = blocks.reshape(batch, height, width, SCALE, SCALE).permute(0, 1, 3, 2, 4)
    image = blocks.reshape(batch, height * SCALE, width * SCALE)
    half = SCALE // 2
    return image[:, half:-half, half:-half]
