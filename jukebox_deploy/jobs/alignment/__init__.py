"""The parts of `align_job`: attention of a prior to lyrics, times of words, subtitles and pictures."""
