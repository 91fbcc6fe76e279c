"""What a dataset is: layouts, official lists, splits, sources; fetching and drawing one."""
