"""A video file or frame folder -> the frames that clips ask for, in supervised processes; imports no torch."""
