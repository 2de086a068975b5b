"""What every part runs on: devices, compilation, processes, files and errors."""
