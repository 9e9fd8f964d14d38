"""Files and functions stay small enough to be read at once."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "jflow"
FILES = sorted(PACKAGE.rglob("*.py"))


def lengths(source: str) -> dict[str, int]:
    """Lines of each function, without its docstring."""
    return {
        node.name: _last_line(node) - node.lineno + 1 - _docstring_lines(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
    }


def _last_line(node: ast.FunctionDef) -> int:
    return node.end_lineno or node.lineno


def _docstring_lines(node: ast.FunctionDef) -> int:
    return len((ast.get_docstring(node) or "").splitlines())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_sizes(path):
    source = path.read_text()
    assert source.count("\n") <= 300
    assert {name: n for name, n in lengths(source).items() if n > 40} == {}


def test_a_long_function_is_noticed():
    assert lengths("def f():\n" + "    x = 1\n" * 41) == {"f": 42}
