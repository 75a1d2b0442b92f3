"""Names, types and shapes of the inputs and outputs of the exported graph. Needs no torch."""

# Names in the graph. They are in the ONNX files that are shipped, so they stay: `rows` are the text embeddings and
# `row_ids` the class id of each.
FRAMES_INPUT = 'frames'
"""uint8 [batch, height, width, 3], RGB; height and width are multiples of 8."""
TEXT_EMBEDDINGS_INPUT = 'rows'
"""float32 [K, embed_dim], projected text embeddings of unit length."""
CLASS_IDS_INPUT = 'row_ids'
"""int64 [K], class id of each text embedding, 0 to 254."""
CONFIDENCE_THRESHOLD_INPUT = 'threshold'
"""float32 scalar, 0 to 1."""
IDS_OUTPUT = 'ids'
"""uint8 [batch, height, width], class id of each pixel, 255 where unlabelled."""
CONFIDENCE_OUTPUT = 'confidence'
"""uint8 [batch, height, width], 255 is probability 1."""
INPUTS = (FRAMES_INPUT, TEXT_EMBEDDINGS_INPUT, CLASS_IDS_INPUT, CONFIDENCE_THRESHOLD_INPUT)
OUTPUTS = (IDS_OUTPUT, CONFIDENCE_OUTPUT)
