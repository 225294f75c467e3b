"""Utilities shared by all packages: errors, settings, files, processes, precision, versions."""
