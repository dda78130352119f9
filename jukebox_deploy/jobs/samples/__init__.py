"""Sampled songs: whether they match their labels, and a page that presents them."""
