"""JPEG: the codec of stores, and levels of slides whose JPEG tiles are used without decoding them."""
