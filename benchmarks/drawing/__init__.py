"""Presentation of results as text, plots and HTML pages. Nothing here measures."""
