"""Results as tables inside documents of this repository, which `readme_numbers` writes."""
