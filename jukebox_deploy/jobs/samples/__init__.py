"""What a model sings: heard for what was asked for, and shown on a page."""
