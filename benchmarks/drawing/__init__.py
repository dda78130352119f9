"""Results as words, plots and pages. Nothing here measures or is run by itself."""
