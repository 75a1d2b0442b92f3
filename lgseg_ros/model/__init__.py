"""The network in PyTorch: backbone, fusion, upsampling, post-processing, weights file, ONNX export."""
