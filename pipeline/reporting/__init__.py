"""Stage 3: runs -> JSON, CSV, Markdown, LaTeX, figures and one page; comparisons."""
