"""Viewer page inside a notebook: one self-contained frame, which needs no server and stays in the saved notebook."""

import base64
import json
import re
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from longvit.config import ViewConfig
from longvit.viewer.find import find
from longvit.viewer.resource import JPEG, PNG, SCRIPT
from longvit.viewer.site import PAGE, START, Site, page_file

NOTEBOOK_PX = 2048
"""Longest side of a slide's picture, pixels: 1 to 3 MB per slide."""
ASSET = re.compile(r'<link rel="stylesheet" href="([^"]+)">|<script src="([^"]+)" defer></script>')


@dataclass(frozen=True)
class NotebookFrame:
    """Frame shown by a notebook; Jupyter, JupyterLab and VS Code call `_repr_html_`."""

    page: str = field(repr=False)
    """Whole page as HTML, with everything in it."""
    height: int
    """Height of the frame, CSS pixels."""

    def _repr_html_(self) -> str:
        style = f"width: 100%; height: {self.height}px; border: 1px solid #d9dee4; border-radius: 8px"
        return f'<iframe srcdoc="{escape(self.page)}" style="{style}" title="LongViT viewer"></iframe>'


def show(
    source: Path | str,
    *,
    explanations: Path | str | None = None,
    pseudonyms: Path | str | None = None,
    height: int = 640,
    max_px: int = NOTEBOOK_PX,
) -> NotebookFrame:
    """Show the viewer inside a notebook, in any notebook program and without a network.

    The page contains its pictures. So it also works if the kernel is on another machine than the browser, and is still
    there when the notebook is opened again. For whole slides at full resolution use `longvit view`.

    Args:
        source: A store, a folder of stores or of explanations, or a run of `longvit finetune`.
        explanations: Folder that `longvit explain` wrote.
        pseudonyms: File with the key of pseudonyms to show in place of ids.
        height: Height of the frame, CSS pixels.
        max_px: Longest side of a slide's picture, pixels.

    Raises:
        PipelineError: The source has nothing to show.
    """
    config = ViewConfig.model_validate({"source": source, "explanations": explanations, "pseudonyms": pseudonyms})
    return NotebookFrame(self_contained(Site(find(config), max_px)), height)


def self_contained(site: Site) -> str:
    """Return the page as one text: scripts, styles, data and pictures inside."""
    pictures, scripts = {}, []
    for path in site.paths():
        resource = site.find(path)
        assert resource is not None, path
        if resource.kind in (JPEG, PNG):
            pictures[path] = f"data:{resource.kind};base64,{base64.b64encode(resource.make()).decode()}"
        elif resource.kind == SCRIPT and path not in PAGE:
            scripts.append(resource.make().decode())
    inside = [f"LongViT.pictures = {json.dumps(pictures)};\n", *scripts]
    text = ASSET.sub(lambda match: _inlined(*match.groups()), page_file(START).decode())
    # After data.js has defined `receive`, before main.js loads the data.
    return text.replace("<!-- data -->", f"<script>{''.join(inside)}</script>")


def _inlined(style: str | None, name: str | None) -> str:
    if style is not None:
        return f"<style>{page_file(style).decode()}</style>"
    assert name is not None
    return f"<script>{page_file(name).decode()}</script>"
