"""What a song is conditioned on: artist, genres, place in the song, lyrics (specification section 11).

Pure Python and NumPy. Names and text go in, the integer arrays that the graphs take come out.
"""
