"""The stages: datasets, extract, probe, finetune, report."""
