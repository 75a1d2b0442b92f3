"""Inference engines: selection, pre-processing, self-test, quantization and the runtimes themselves."""
