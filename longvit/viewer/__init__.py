"""Viewer of slides: deep zoom, heatmaps, the tissue mask, and the place of a patient in the cohort.

`find` returns the slides, `scene` the files of one slide, and `site` the files by their address. `server`, `static` and
`notebook` hand the same files to a browser, a folder, and a notebook cell. No file comes from, or goes to, another
machine.
"""
