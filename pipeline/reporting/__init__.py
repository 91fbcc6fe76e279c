"""Reports of runs: statistics, tables and figures as JSON, CSV, Markdown, LaTeX and one HTML page.

::

    files = report([read_run(Path("runs/base-linear"))], output=Path("report"))
    files.html  # report/report.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actionvit.lazy import lazy_names

if TYPE_CHECKING:
    from actionvit.pipeline.reporting.embeddings import Embeddings as Embeddings
    from actionvit.pipeline.reporting.embeddings import read_embeddings as read_embeddings
    from actionvit.pipeline.reporting.inputs import dataset_folder as dataset_folder
    from actionvit.pipeline.reporting.inputs import encoder_attention as encoder_attention
    from actionvit.pipeline.reporting.model import Report as Report
    from actionvit.pipeline.reporting.writer import ReportFiles as ReportFiles
    from actionvit.pipeline.reporting.writer import assemble as assemble
    from actionvit.pipeline.reporting.writer import report as report

_MODULES = {
    "Embeddings": "embeddings",
    "Report": "model",
    "ReportFiles": "writer",
    "assemble": "writer",
    "dataset_folder": "inputs",
    "encoder_attention": "inputs",
    "read_embeddings": "embeddings",
    "report": "writer",
}
__all__ = [*_MODULES]
__getattr__ = lazy_names(__name__, _MODULES)
