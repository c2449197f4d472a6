"""Expressions as trees, and questions about their shape."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

MAX_HEIGHT = 128
"""Higher trees are walked in workers only: a walk takes a stack frame or two for each level."""


@dataclass(frozen=True, slots=True)
class Node:
    """``x+1`` is ``Node("sum", (Node("variable", name="x"), Node("number", value=Fraction(1))))``."""

    kind: str
    parts: tuple[Node, ...] = ()
    value: Fraction = Fraction(0)
    name: str = ""
    """Of a variable, a constant, a function; ``mixed`` of a mixed number."""
    columns: int = 0
    """Width of a matrix, whose parts are its cells row by row."""


ONE = Node("number", value=Fraction(1))


def variables(node: Node) -> frozenset[str]:
    """The names of the free variables of a tree."""
    if node.kind == "variable":
        return frozenset((node.name,))
    inner: frozenset[str] = frozenset().union(*(variables(part) for part in node.parts))
    return inner - {node.name} if node.kind in ("summation", "multiplication") else inner


def uses(node: Node, kinds: frozenset[str]) -> bool:
    """Whether a node of one of the ``kinds`` occurs in the tree."""
    return node.kind in kinds or any(uses(part, kinds) for part in node.parts)


def as_variable(node: Node, name: str) -> Node:
    """The tree with a variable in place of the constant ``name``: ``i`` may be an index of summation, or a vector."""
    if node.kind == "constant" and node.name == name:
        return Node("variable", name=name)
    return replace(node, parts=tuple(as_variable(part, name) for part in node.parts))


def negative(node: Node) -> Node:
    """The tree with a minus sign, which a number takes into itself."""
    if node.kind == "number":
        return Node("number", value=-node.value)
    return Node("negative", (node,))


def times(first: Node, second: Node) -> Node:
    """The product; one of several factors is one node."""
    if first.kind == "product":
        return Node("product", (*first.parts, second))
    return Node("product", (first, second))
