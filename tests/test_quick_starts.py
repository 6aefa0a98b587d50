"""The documentation's first pages, as a newcomer walks through them: what they show is typed and run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_documentation import ROOT, blocks

pytestmark = pytest.mark.slow
PAGES = sorted((ROOT / "docs" / "start").glob("*.rst"))
# The environment that a newcomer makes is the one at hand.
INSTALL = "pip install -c constraints.txt -e . && "


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_from_top_to_bottom(page, tmp_path):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    told = []
    for block in blocks(page):
        if block.name == "testcode":
            told.append(block.text)
            script = "\n".join(told)
            words = [sys.executable, "-c", script]
        elif (block.name, block.argument) == ("code-block", "bash"):
            words = ["bash", "-ec", block.text.replace(INSTALL, "")]
        else:
            continue
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{page}, line {block.line}:\n{done.stdout}\n{done.stderr}"
