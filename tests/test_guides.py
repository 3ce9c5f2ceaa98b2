"""Every ```python block of the guides and the README runs, in order, as pasted by a reader; warnings are errors."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))


def blocks(text):
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def test_guides_are_there_and_short():
    names = {page.stem for page in GUIDES}
    assert {"own-activation", "own-analyzer", "own-attack", "own-dataset", "roughness", "text"} <= names
    for page in GUIDES:
        assert len(page.read_text(encoding="utf-8").splitlines()) < 80, page.name


@pytest.mark.parametrize("page", [*GUIDES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_guide_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = blocks(page.read_text(encoding="utf-8"))
    assert found
    namespace = {"__name__": f"guide_{page.stem.replace('-', '_')}"}
    for place, source in enumerate(found, start=1):
        exec(compile(source, f"{page.name}, block {place}", "exec"), namespace)
