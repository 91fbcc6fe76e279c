"""The functions behind `import actionvit`: the stages of the pipeline, with settings as keywords."""
