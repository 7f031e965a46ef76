"""Tissue detection on the overview: classification of pixels, pen, focus, regions, and users' masks."""
