import sys
from pathlib import Path

import learnsolve

sys.path.insert(0, str(Path(__file__).parent))

project = "learnsolve"
author = "the learnsolve authors"
copyright = "the learnsolve authors, BSD-3-Clause"
version = release = learnsolve.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "measured_tables",
]
exclude_patterns = ["_build", "Thumbs.db", "gallery/*.ipynb", "gallery/*.py", "**/*.md5"]
suppress_warnings = ["config.cache"]

autosummary_generate = True
autodoc_typehints = "none"
autodoc_default_options = {"members": True, "show-inheritance": False}
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
default_role = "autolink"

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "image_scrapers": ("saved_images.scraper",),
    "reset_modules": (),
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "plot_gallery": "True",
    "abort_on_example_error": True,
}

html_theme = "pydata_sphinx_theme"
html_title = "learnsolve"
html_sourcelink_suffix = ""
html_show_sourcelink = False
html_theme_options = {
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 7,
}
