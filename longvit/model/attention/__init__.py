"""LongNet's dilated attention: its branches, their gradient, and the layer around them."""
