"""Slides read as RGB pixels, and checks of slide files: format, sizes, resolution, source."""
