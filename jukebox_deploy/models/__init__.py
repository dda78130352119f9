"""The networks as PyTorch modules: VQ-VAE, priors and their conditioners."""
