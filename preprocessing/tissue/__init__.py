"""Tissue detection on the overview: classes of pixels, pen, focus, regions, and masks of users."""
