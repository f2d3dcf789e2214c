"""The mutants of a module: each is one small mistake that a person could make, in the code or in its SQL.

Much of what the money rooms decide stands in SQL, which mutation tools see as a string like any other: here its
fragments are swapped as operators are. Docstrings, annotations and sentences for people are left alone.
"""

from __future__ import annotations

import ast
import copy
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SQL: Final = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE)\b|\s*(AND|WHERE|ON CONFLICT)\b")
_SWAPS: Final = tuple(
    (re.compile(pattern), by)
    for pattern, by in (
        (r">=", ">"),
        (r"<=", "<"),
        (r"(?<![<>]) > ", " >= "),
        (r" < ", " <= "),
        (r" != ", " = "),
        (r"(?<=[\w\])}]) = (?=[:?'\w])", " != "),
        (r" \+ ", " - "),
        (r" - ", " + "),
        (r"\bposted\b", "pending"),
        (r"\bpending\b", "posted"),
        (r"_posted\b", "_pending"),
        (r"_pending\b", "_posted"),
        (r"\bdebits(?=_)", "credits"),
        (r"\bcredits(?=_)", "debits"),
        (r"\brefunded\b", "posted"),
        (r" AND ", " OR "),
        (r" OR ", " AND "),
        (r"NOT EXISTS", "EXISTS"),
        (r"IS NULL", "IS NOT NULL"),
        (r"IS NOT NULL", "IS NULL"),
        (r" DESC\b", ""),
        (r" ORDER BY [\w, ]+?(?= DESC| LIMIT|$)", ""),
        (r" LIMIT (\d+|\?)", ""),
        (r"\bmax\(", "min("),
        (r"\bsum\(", "max("),
        (r" BETWEEN \? AND \?", " NOT BETWEEN ? AND ?"),
        (r" ON CONFLICT DO NOTHING", ""),
        (r"DO UPDATE SET \w+ = [\w. +]+", "DO NOTHING"),
        (r"'post'", "'void'"),
        (r"'void'", "'post'"),
        (r"'reserve'", "'post'"),
        (r"'refund'", "'post'"),
        (r"(?<![\w'?])\b0\b", "1"),
        (r"(?<![\w'?])(?<!SELECT )\b1\b(?!,)", "2"),
    )
)
_COMPARISONS: Final[dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_OPERATORS: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}
_CALLS: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """One mistake in one file; `key` names it by its text, so that it stays the same while other lines change."""

    path: str
    key: str
    source: str

    @property
    def name(self) -> str:
        """Unique over all files."""
        return f"{self.path}: {self.key}"


def mutants_of(path: Path, root: Path) -> list[Mutant]:
    """All mutants of a file, in the order of its lines."""
    tree = ast.parse(path.read_text("utf-8"))
    named = str(path.relative_to(root))
    seen: Counter[str] = Counter()
    found: list[Mutant] = []
    for place, scope, fresh in _changes(tree):
        mutated = copy.deepcopy(tree)
        _replace(mutated, place, fresh)
        ast.fix_missing_locations(mutated)
        source = ast.unparse(mutated)
        before, after = _changed_lines(ast.unparse(tree), source)
        key = f"{scope}: {before} => {after}"
        seen[key] += 1
        if seen[key] > 1:
            key = f"{key} ({seen[key]})"
        found.append(Mutant(named, key, source))
    return found


Place = tuple[tuple[str, int | None], ...]


def _changes(tree: ast.Module) -> Iterator[tuple[Place, str, ast.AST]]:
    """Where (the way down from the module), in what, and what stands there instead."""
    for place, node, scope, in_sql in _walk(tree, (), "module", in_sql=False):
        for fresh in _mutations(node, in_sql):
            yield place, scope, fresh


def _walk(node: ast.AST, place: Place, scope: str, *, in_sql: bool) -> Iterator[tuple[Place, ast.AST, str, bool]]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        scope = node.name if scope == "module" else f"{scope}.{node.name}"
    if isinstance(node, ast.JoinedStr):
        first = node.values[0] if node.values else None
        if not (isinstance(first, ast.Constant) and _SQL.match(str(first.value))):
            return  # a sentence for people, or a name that its parts make
        in_sql = True
    yield place, node, scope, in_sql
    for name, value in ast.iter_fields(node):
        if name in _SKIPPED_FIELDS or (type(node), name) in _NEVER_RUN:
            continue
        children: list[tuple[int | None, object]] = (
            list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        )
        for index, child in children:
            if isinstance(child, ast.AST) and not _left_alone(child):
                yield from _walk(child, (*place, (name, index)), scope, in_sql=in_sql)


_SKIPPED_FIELDS: Final = {"annotation", "returns", "decorator_list", "type_params"}
# A column or a class option of another name ends every run at once: that would only flatter the score.
_NEVER_RUN: Final = {(ast.Subscript, "slice"), (ast.ClassDef, "keywords")}


def _left_alone(node: ast.AST) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True  # a docstring
    if isinstance(node, ast.Assign):  # a type, such as Literal["post", "void"]
        return isinstance(node.value, ast.Subscript) and isinstance(node.value.value, ast.Name)
    return False


def _mutations(node: ast.AST, in_sql: bool) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            for other in _COMPARISONS[type(operator)]:
                yield _with(node, ops=[*node.ops[:index], other(), *node.ops[index + 1 :]])
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _OPERATORS:
        yield _with(node, op=_OPERATORS[type(node.op)]())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node.operand
    elif isinstance(node, ast.BoolOp):
        yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.If | ast.While | ast.IfExp | ast.Assert):
        if not isinstance(node.test, ast.Compare):
            yield _with(node, test=ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.comprehension):
        for index in range(len(node.ifs)):
            yield _with(node, ifs=[*node.ifs[:index], *node.ifs[index + 1 :]])
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
        yield _with(node, func=ast.Name(_CALLS[node.func.id], ast.Load()))
    elif isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield ast.Pass()
    elif isinstance(node, ast.Constant):
        yield from _constants(node, in_sql)


def _constants(node: ast.Constant, in_sql: bool) -> Iterator[ast.AST]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
        yield ast.Constant(value - 1)
    elif isinstance(value, str) and (in_sql or _SQL.match(value)):
        for text in _sql_mutations(value):
            yield ast.Constant(text)
    elif isinstance(value, str) and value and " " not in value:
        yield ast.Constant(f"{value}x")


def _sql_mutations(text: str) -> Iterator[str]:
    for pattern, by in _SWAPS:
        for match in pattern.finditer(text):
            if by == " != " and "WHERE" not in text[: match.start()]:
                continue  # it assigns
            yield text[: match.start()] + by + text[match.end() :]


def _with(node: ast.AST, **changes: object) -> ast.AST:
    fresh = copy.copy(node)
    for name, value in changes.items():
        setattr(fresh, name, value)
    return fresh


def _replace(tree: ast.AST, place: Place, fresh: ast.AST) -> None:
    node: ast.AST = tree
    for name, index in place[:-1]:
        child = getattr(node, name)
        node = child if index is None else child[index]
    name, index = place[-1]
    if index is None:
        setattr(node, name, fresh)
    else:
        getattr(node, name)[index] = fresh


def _changed_lines(before: str, after: str) -> tuple[str, str]:
    """What differs, with enough of its line to know it by."""
    old, new = before.splitlines(), after.splitlines()
    start = next((n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    stop = 0
    while stop < min(len(old), len(new)) - start and old[-1 - stop] == new[-1 - stop]:
        stop += 1
    was, now = (" ".join(line.strip() for line in lines[start : len(lines) - stop]) for lines in (old, new))
    if len(was) <= _SHOWN:
        return was, now
    first = next((n for n, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), 0)
    left = max(0, first - _SHOWN // 2)
    return was[left : first + _SHOWN // 2], now[left : first + _SHOWN // 2]


_SHOWN: Final = 120
