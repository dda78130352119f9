"""Complete jobs, such as export or sampling; the command line only adds options and output.

Each job has a module, and a folder for its parts. Only the jobs, the command line and the benchmarks may import from
every layer.
"""
