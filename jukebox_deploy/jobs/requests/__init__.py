"""Songs as users ask for them: by options, by files of lines, by the songs of a corpus."""
