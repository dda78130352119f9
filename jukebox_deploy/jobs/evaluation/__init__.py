"""The parts of `evaluate_job`: songs that were held out, and models of either kind that are scored on them."""
