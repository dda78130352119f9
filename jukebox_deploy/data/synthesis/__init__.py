"""Synthesis of structured music without copyright restrictions: `jukebox-deploy data synthesize`.

There are three stages, each independent of the later ones: a score is composed (`composition`), performed
(`performance`), and written together with its ground truth (`corpus`). Everything is a function of the seed and the
number of the song.
"""
