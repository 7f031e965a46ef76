"""The steps from a slide to its store: manifest, grid, pixels, decisions to tile again, report."""
