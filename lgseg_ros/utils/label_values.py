"""Pixel values with a meaning in masks and label images, uint8. Class ids and class indices are below all of them."""

UNLABELLED = 255
"""In a mask: a pixel whose confidence is below the threshold. Class ids are 0 to 254."""
IGNORE = UNLABELLED
"""In a label image: a pixel that nobody labelled. It is excluded from loss and metrics."""
OUTSIDE = 254
"""In a training crop that is larger than its image: a pixel beyond the edge."""
UNLISTED = 253
"""While a label image is read: a label that dataset.yaml does not list. A data set has at most 253 classes."""
