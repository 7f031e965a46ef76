from preprocessing.tiling.piece_table import PIECES, save_pieces


def test_a_piece_has_its_tiles_and_their_box_on_the_whole_slide(make_store, tmp_path):
    save_pieces(tmp_path, [make_store()])
    assert (tmp_path / PIECES).read_text().splitlines() == [
        "slide_id,piece,n_tiles,x_l0,y_l0,width_l0,height_l0",
        "slide,0,3,0,0,128,128",
        "slide,1,1,0,128,64,64",
        "slide,2,1,192,128,64,64",
    ]
