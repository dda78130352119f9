"""Checkpoints: OpenAI's and Hugging Face's files, and this project's checkpoint bundle."""
