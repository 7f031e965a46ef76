"""Encoding of stores as slide vectors: `encode_slide` for one slide, `longvit encode` for a folder of stores."""
