"""Prints the lower bounds of pyproject.toml's dependencies as constraints: a>=1 becomes a==1."""

import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
for requirement in project["dependencies"]:
    print(requirement.replace(">=", "=="))
