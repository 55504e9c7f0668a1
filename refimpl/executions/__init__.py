"""How a computation is run: devices, precisions, wrappers, processes, many seeds at once."""
