"""Generated tables in the Markdown documents of this repository; `readme_numbers` writes them."""
