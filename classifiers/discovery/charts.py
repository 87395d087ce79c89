"""BERTopic's own charts in one HTML file that needs no network."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

from classifiers.discovery.model import TopicModel, quiet_import

__all__ = ["write_charts"]

SHOWN_MAX = 12


def write_charts(model: TopicModel | None, path: Path) -> list[str]:
    """Draw what can be drawn of a fit.

    Parameters
    ----------
    model : TopicModel
    path : Path
        Of the HTML file; the plotting library is inside of it (5 MB).

    Returns
    -------
    list of str
        Names of the charts; some need a least number of topics.
    """
    parts: list[tuple[str, str]] = []
    if model is not None and model.model_ is not None:
        with quiet_import():
            for name, draw in _charts(model).items():
                try:
                    figure = draw()
                except (ValueError, IndexError, TypeError, KeyError):
                    continue  # too few topics for this one
                parts.append((name, figure.to_html(full_html=False, include_plotlyjs=not parts)))
    body = "\n".join(f"<h2>{html.escape(name)}</h2>\n{part}" for name, part in parts)
    page = '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Emerging topics</title>\n'
    path.write_text(f"{page}<h1>Emerging topics</h1>\n{body or '<p>No topics were found.</p>'}\n</html>\n")
    return [name for name, _ in parts]


def _charts(model: TopicModel) -> dict[str, Callable[[], Any]]:
    own = model.model_
    return {
        "words": lambda: own.visualize_barchart(top_n_topics=SHOWN_MAX),
        "documents": lambda: own.visualize_documents(
            [text[:120] for text in model.texts_], embeddings=model.vectors_, hide_annotations=True
        ),
        "map": own.visualize_topics,
        "similarity": own.visualize_heatmap,
        "hierarchy": own.visualize_hierarchy,
    }
