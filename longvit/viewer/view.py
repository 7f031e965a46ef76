"""Verb `view`: a run, stores or explanations -> a page on this machine, or a folder with the page."""

import webbrowser

from longvit.config import ViewConfig
from longvit.viewer.find import find
from longvit.viewer.server import Server
from longvit.viewer.site import Site
from longvit.viewer.static import megabytes, write_static


def run(config: ViewConfig) -> None:
    """Write the page to the folder `static` if it is given, else serve the page until interrupted.

    Raises:
        PipelineError: There is nothing to show, the port is taken, or the folder contains something else.
    """
    if config.static is not None:
        page = write_static(Site(find(config), config.max_px), config.static)
        print(f"{page}\n{megabytes(config.static):.1f} MB; slides are at most {config.max_px} pixels wide or high")
        return
    with Server(Site(find(config)), config.port) as server:
        print(f"{server.address}\nopen this address in a browser on this machine; Ctrl-C stops the viewer", flush=True)
        if config.browser:
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped")
