"""Measurements, each of which tells on what machine and with what it was made."""
