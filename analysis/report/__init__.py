"""The report of a run: `python -m analysis.report run=latest`. No torch.

`values.collect` gathers all that is told, `sections.document` puts it in order, `charts` draws from it; `page` and
`markdown` write the same document for a browser and for plain text, `interactive` and `static` the same charts.
"""

from analysis.report.write import write_report

__all__ = ["write_report"]
