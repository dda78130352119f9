"""Requests for songs: from options, from files of JSON lines, and from the songs of a corpus."""
