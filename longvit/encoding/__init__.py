"""Stores + encoder -> slide vectors: `encode_slide` for one, `longvit encode` for a folder of them."""
