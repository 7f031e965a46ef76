"""LongNet's dilated attention: the branches, their gradient, and the layer around them."""
