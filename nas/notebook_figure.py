"""Figures that show themselves in a notebook."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """A figure that a notebook shows where a cell ends with it, whether or not pyplot is set up there."""

    def _repr_png_(self) -> bytes:
        """The figure as a PNG, as Jupyter asks for it."""
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=80)
        return file.getvalue()
