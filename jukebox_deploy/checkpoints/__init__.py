"""Checkpoints: the files of OpenAI and Hugging Face, and this project's checkpoint bundle."""
