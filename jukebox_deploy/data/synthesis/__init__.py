"""Generated music with structure, free of anybody's rights: `jukebox-deploy data synthesize`.

Three steps that know nothing of the later ones: a score is composed (`composition`), performed (`performance`),
and written beside its ground truth (`corpus`). Everything is a function of the seed and the number of the song.
"""
