# SPDX-License-Identifier: GPL-3.0-or-later
"""Sphinx settings. The pages need nothing from the internet and bear no date: the plugin's zip holds them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from docutils import nodes

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import tables  # noqa: E402

from specdeepmap import __version__  # noqa: E402

project = "SpecDeepMap"
author = "SpecDeepMap team"
copyright = "SpecDeepMap team"  # noqa: A001 - Sphinx wants this name
release = version = __version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
autodoc_mock_imports = ["lightning", "torch", "segmentation_models_pytorch", "timm", "tensorboard", "osgeo"]
exclude_patterns = ["_build", "generated"]
highlight_language = "none"
rst_epilog = tables.substitutions()
html_theme = "alabaster"
html_theme_options = {
    "description": "Deep-learning mapping of spectral imagery",
    "page_width": "1160px",
    "sidebar_width": "240px",
    "fixed_sidebar": True,
    "show_powered_by": False,
    "sidebar_collapse": True,
}
html_title = f"SpecDeepMap {version}"
html_static_path = ["_static"]
html_css_files = ["specdeepmap.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_use_index = False
html_domain_indices = False


def parameter_role(
    name: str, rawtext: str, text: str, lineno: int, inliner: Any, options: Any = None, content: Any = ()
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """Show a parameter's name as the target of links to it; ``to-parameter`` is such a link on the same page."""
    anchor = text.lower().replace("_", "-")
    literal = nodes.literal(rawtext, text)
    marks: dict[str, Any] = {} if name == "to-parameter" else {"ids": [anchor], "classes": ["parameter"]}
    return [nodes.reference(rawtext, "", literal, refuri=f"#{anchor}", internal=True, **marks)], []


def visit_inline_math(translator: Any, node: nodes.math) -> None:
    """Write a formula as MathML, which browsers show without a script."""
    _write_math(translator, node, as_block=False)


def visit_math_block(translator: Any, node: nodes.math_block) -> None:
    """Write a displayed formula as MathML."""
    _write_math(translator, node, as_block=True)


def _write_math(translator: Any, node: nodes.Element, as_block: bool) -> None:
    from docutils.utils.math.latex2mathml import tex2mathml

    translator.body.append(tex2mathml(node.astext(), as_block=as_block))
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Have the generated parts made before Sphinx reads."""
    app.connect("builder-inited", lambda _: tables.generate(HERE / "generated"))
    app.add_role("parameter", parameter_role)
    app.add_role("to-parameter", parameter_role)
    app.add_html_math_renderer("mathml", (visit_inline_math, None), (visit_math_block, None))
