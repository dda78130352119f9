"""Sampling of songs with an opened engine. No torch and no backend is imported here."""
