"""The parts of `evaluate_job`: held-out songs, and the bundles that are scored on them."""
