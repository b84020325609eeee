"""The command line: one file per noun. Exit codes: 0 done, 1 it could not be done, 2 the call or a setting is wrong."""
