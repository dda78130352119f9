"""Training data: folders of songs, their codes, and batches of both."""
