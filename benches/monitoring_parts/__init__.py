"""The parts of the monitoring bench, one file each; every one can be run by itself."""
