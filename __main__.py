"""`python -m actionvit` is `actionvit` (torchrun needs a module)."""

from actionvit.cli import main

main()
