from longvit.viewer.find import ViewerSources
from longvit.viewer.scene import Scene


def test_tiles_of_no_lattice_are_drawn_at_the_nearest_cell_and_the_page_says_so(save_store):
    path = save_store("S", [[0, 0], [0, 1]]).path
    warnings = []
    for lattice in ("true", "false"):
        document = path / "zarr.json"
        document.write_text(document.read_text().replace('"lattice": true', f'"lattice": {lattice}'))
        warnings.append(Scene.open("data/0/", "S", ViewerSources("S", {"S": path}), None).document()["warnings"])
    assert warnings[1] == [*warnings[0], "the tiles are not cells of one grid; each is drawn at the nearest cell"]
