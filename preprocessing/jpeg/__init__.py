"""JPEG: the codec of stores, and slide levels whose JPEG tiles are copied without decoding."""
