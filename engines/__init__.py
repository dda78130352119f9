"""The backends, which share one interface (`jukebox_deploy.engine`), their engine builders, and engine bundles on disk.

Importing a module of this package imports no backend library, PyTorch, model or exporter; that happens on first use.
"""
