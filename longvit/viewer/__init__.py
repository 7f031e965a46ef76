"""A page to look at slides with: deep zoom, heatmaps, the tissue mask, and where a patient stands in the cohort.

`find` says which slides, `scene` what there is of one, `site` under which address; `server`, `static` and `notebook`
hand the same files to a browser, to a folder, and to a cell. Nothing of it comes from, or goes to, another machine.
"""
