"""What may be shown of what a worker says. Pure: no socket, no IPython, nothing is decoded."""
