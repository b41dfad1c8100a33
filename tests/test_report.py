"""The text of a report: what names and values with markup in them become."""

import io
import re

import numpy as np
import pytest
from report_page import Page

from vae_tf import plots
from vae_tf.evaluation import report


@pytest.mark.parametrize(
    "text",
    [
        "x_y _z_ __w__ snake__case Var_x E_q[z]",
        "*a* **b** `c` \\d \\| |.| ~~e~~",
        "[a](http://b) [c][d] ![e](f) <http://g> [h]: i",
        "&amp; &#35; R&D 1 < 2 <b>bold</b> <!-- no --> ends with #",
        "# no heading",
        "<script>alert(1)</script> <img src=x onerror=y> </td> &lt;",
        "- no list",
        "1. no list",
        "> no quotation",
        "~~~ no code",
        "--- no rule",
    ],
)
def test_what_markdown_would_read_into_a_text_is_not_read_into_it(text, tmp_path):
    """In the page, which is rendered from the Markdown, every text is what it was."""
    sections = [report.Section(text, [(text, text)], text, caveats=[text])]
    path, written = tmp_path / "report.html", report.markdown(text, sections)
    assert not re.search(r"<\w", written)  # for readers that obey HTML too
    path.write_text(report.page(text, written, {}))
    page = Page(path)
    assert page.texts["title"] == page.texts["h1"] == page.texts["h2"] == [text]
    assert page.texts["td"] == [text, text]
    assert page.texts["p"] == [f" {text}", text]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb\x00c", r"a\x1b[31mb\x00c"),
        ("right\u202eto left", r"right\u202eto left"),
        ("no\udcff text", r"no\udcff text"),  # a name that is not UTF-8
        ("Größe 数 é", "Größe 数 é"),
    ],
)
def test_control_characters_are_shown_and_not_obeyed(text, shown, tmp_path):
    path = report.write(tmp_path / "report", text, [report.Section(text, [(text, text)], text)], {})
    assert text == shown or text not in (path / "report.md").read_text()
    page = Page(path / "report.html")
    assert page.texts["title"] == page.texts["h1"] == page.texts["h2"] == page.texts["p"] == [shown]
    assert page.texts["td"] == [shown, shown]


def test_html_in_the_markdown_is_shown_and_not_obeyed(tmp_path):
    path = tmp_path / "report.html"
    path.write_text(report.page("title", "<script>alert(1)</script>\n\na <b>c</b>", {}))
    page = Page(path)
    assert not {"script", "b"} & {tag for tag, _ in page.tags}
    assert page.texts["p"] == ["<script>alert(1)</script>", "a <b>c</b>"]


def test_labels_in_a_picture_are_shown_as_they_are():
    """For matplotlib "$x^$" is mathematics, and wrong; "_x" is no entry of a legend."""
    labels = np.array(["$x^$", "_x", "a\x1b[31m", "5$"])
    figure = plots.encodings(np.random.default_rng(0).normal(size=(40, 2)), np.repeat(labels, 10))
    figure.savefig(io.BytesIO(), format="png")
    shown = {text.get_text().strip() for text in figure.axes[0].get_legend().get_texts()}
    assert shown == {r"\$x^\$", "_x", r"a\x1b[31m", r"5\$"}  # matplotlib draws \$ as $
