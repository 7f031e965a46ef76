"""Command line of LongViT."""
