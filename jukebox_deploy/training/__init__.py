"""Training of the VQ-VAE and the priors; the result is a checkpoint bundle like any other."""
