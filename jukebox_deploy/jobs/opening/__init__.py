"""From a folder to an engine that runs, whatever the folder holds."""
