"""A panel as text, page, fragment and JSON: complete, narrow enough, and nothing unescaped."""

import json
from html.parser import HTMLParser

import pytest
import torch
from rich.console import Console
from torch import nn

import smoothness as sm

HOSTILE = "</style></script><img src=x onerror=alert(1)>[red]\x1b[31m{{ 7*7 }}"
VOID = {"meta", "br", "img", "link", "input"}


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert not reader.open
    return reader


@pytest.fixture(scope="module")
def panel() -> sm.Panel:
    class Strange(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.ModuleDict({HOSTILE.replace(".", ""): nn.Sequential(nn.Linear(4, 6), nn.ReLU())})
            self.head = nn.Linear(6, 3)

        def forward(self, x):
            return self.head(next(iter(self.net.values()))(x))

    Strange.__name__ = HOSTILE
    net, x = Strange(), torch.rand(12, 4, generator=torch.Generator().manual_seed(0))
    return sm.analyze(net, x, net(x).argmax(dim=1))


def test_page_is_whole_escaped_and_asks_for_nothing(panel, tmp_path):
    path = tmp_path / "new" / "panel.html"
    html = panel.to_html(path)
    assert path.read_text(encoding="utf-8") == html
    reader = read(html)
    assert not {"script", "img", "link", "iframe"} & set(reader.tags)
    names = [name for name, _ in reader.attributes]
    assert not any(name.startswith("on") or name in ("src", "href") for name in names)
    assert "url(" not in html
    assert "@import" not in html
    assert "\x1b" not in html
    text = " ".join(reader.words)
    assert "<img src=x onerror=alert(1)>" in text  # as words
    assert "{{ 7*7 }}" in text
    for word in ("exact", "lower bound", "upper bound", "estimate", "1 / input l2", "relu", "✓ holds"):
        assert word in text
    assert "prefers-color-scheme: dark" in html


def test_fragment_for_notebooks_touches_nothing_around_it(panel):
    reader = read(panel._repr_html_())
    assert not {"html", "body", "head", "script", "img"} & set(reader.tags)
    style = reader.words[reader.words.index(next(w for w in reader.words if "--paper" in w))]
    selectors = [line for line in style.splitlines() if line.rstrip().endswith("{") and not line.startswith("@")]
    assert all(".smoothness-panel" in line for line in selectors)


def test_text_fits_80_columns_and_is_not_markup(panel):
    text = str(panel)
    assert max(map(len, text.splitlines())) <= 80
    assert "[red]" in text
    assert "\x1b" not in text
    for word in ("lower bound", "upper bound", "exact", "relu", "0: kinks", "Not available", "holds"):
        assert word in text
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(panel)
    assert "lower bound" in console.export_text()
    console.file.close()


def test_json_says_what_the_tables_say(panel):
    record = json.loads(panel.to_json())
    rows = {row["name"]: row for row in record["summary"]}
    assert rows["clean accuracy"] | {"value": 1.0, "kind": "exact"} == rows["clean accuracy"]
    assert rows["success of pgd-ce"]["kind"] == "lower bound"
    assert rows["robust accuracy, all attacks"]["kind"] == "upper bound"
    assert record["activations"][0]["curvature"] == "inf"
    assert record["masking"]["masked"] is False
    assert record["settings"]["pgd-ce"]["steps"] == 40
    assert [check["passed"] for check in record["checks"]] == [True] * 8
