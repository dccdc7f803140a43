"""How large the engine is.

Claim: about 2,500 lines for training and flying; a newcomer finds the file by its name.

Command: python benchmarks/size.py [--json FILE]

Reading it: lines that hold code, docstrings, comments and blank lines left out, for each file of `mission/`; the
reports apart, which training and flying do without.
"""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import common

ENGINE = Path(__file__).parents[1] / "mission"
SILENT = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def code_lines(path: Path) -> int:
    source = path.read_text(encoding="utf-8")
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in SILENT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if documented and ast.get_docstring(node) is not None:
            lines.difference_update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def main() -> None:
    arguments = common.parser(__doc__, peer=False).parse_args()
    files = {str(path.relative_to(ENGINE)): code_lines(path) for path in sorted(ENGINE.rglob("*.py"))}
    reports = sum(lines for name, lines in files.items() if name.startswith("report/"))
    table = [("file", "lines of code"), *((name, str(lines)) for name, lines in files.items())]
    table += [("training and flying", str(sum(files.values()) - reports)), ("reports", str(reports))]
    common.print_table(table)
    common.write_json(arguments.json, files)


if __name__ == "__main__":
    main()
