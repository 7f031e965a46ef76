"""Slides read as RGB pixels, and checks of what slide files claim: formats, sizes, resolution, source."""
