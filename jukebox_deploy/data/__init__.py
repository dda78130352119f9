"""Music to train on."""
