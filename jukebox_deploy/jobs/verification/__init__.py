"""The parts of `verify_job`: comparisons with the checkpoint, and the report."""
