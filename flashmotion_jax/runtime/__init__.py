"""Infrastructure: devices, compilation, processes, files and errors."""
