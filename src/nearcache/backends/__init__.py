"""Engines: what one must do (`base`), which URL names which (`registry`), and one module or package for each."""
