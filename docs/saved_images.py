"""The gallery's pictures are the files that an example saves, as a user would find them."""

import shutil
from pathlib import Path

from sphinx_gallery.scrapers import figure_rst


def scraper(block, block_vars, gallery_conf):
    """Move the images that a block of an example has saved beside it into the gallery."""
    names = []
    paths = block_vars["image_path_iterator"]
    for source in sorted(Path(block_vars["src_file"]).parent.glob("*.png")):
        target = next(paths)
        shutil.move(source, target)
        names.append(target)
    return figure_rst(names, gallery_conf["src_dir"])
