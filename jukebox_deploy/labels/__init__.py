"""Labels that condition a song: artist, genres, timing and lyrics (specification section 11).

Pure Python and NumPy: names and text are converted to the integer arrays that the graphs take.
"""
