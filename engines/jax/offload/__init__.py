"""Layers that wait in host memory or in a file, and the programs that run them one by one."""
