"""The command line: `otpy demo`, `otpy eval`, `otpy optimize`, `otpy models`."""
