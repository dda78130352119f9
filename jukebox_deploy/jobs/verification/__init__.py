"""The parts of `verify_job`: what is compared with the checkpoint, and the report of it."""
