"""Training and evaluation: data sets, prompts, losses, metrics, the training loop and the run directory."""
