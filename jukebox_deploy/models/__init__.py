"""The networks as PyTorch modules: the VQ-VAE, the priors and their conditioners."""
