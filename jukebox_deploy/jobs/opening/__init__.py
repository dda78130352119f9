"""Opening of checkpoint bundles and engine bundles as running engines."""
