"""The vocabulary: classes, presets, ids, and the text embeddings of their phrases."""
