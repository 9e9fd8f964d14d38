"""The command line of jflow: densities of tables and of images.

`jflow fit`, `compare`, `score`, `sample`, `report`, `impute`, `edit`, `restore` and `info`.
"""

import os
import sys
import zipfile

# What a user can mend; all else is a fault of this library, and tells where.
_USERS = (ValueError, TypeError, OSError, ImportError, zipfile.BadZipFile)


def main(arguments: list[str] | None = None) -> None:
    """Runs a command, and ends the process: 0 if all went well, 2 for errors, 130 for Ctrl-C."""
    try:
        import tyro
    except ImportError:
        print("jflow: the command line needs tyro: pip install 'jflow[cli]'", file=sys.stderr)
        sys.exit(2)
    from jflow.cli.commands import COMMANDS

    command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS, prog="jflow", description=__doc__, args=arguments
    )
    try:
        command()
    except BrokenPipeError:  # of `jflow sample ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except _USERS as error:
        print(f"jflow: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
