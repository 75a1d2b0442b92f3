"""The network in PyTorch: backbone, fusion, upsampling, postprocessing, weights file."""
