"""The command line: `nearcache COMMAND`, with one file for each command.

A command is a module whose docstring says in its first line what it does, with two functions:

    configure(parser)           adds the command's own options; `--url` and `--json` are there already
    run(options) -> int         does it, prints, and returns the exit code: 0, or 1 after a finding

`main.COMMANDS` lists them. Errors of the library become one line and an exit code in `main`, so commands let them pass.
Nothing here knows more of the library than its users do, but for the doctor, who is given `_checkup`.
"""
