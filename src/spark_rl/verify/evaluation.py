r"""From the tree of an expression to its value at a point, matrices included.

Everything is bounded before it is computed: factorials, binomials, lengths of sums, powers and sizes of matrices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from spark_rl.verify.functions import applied, exponential, function_of, pi, power, whole_number
from spark_rl.verify.notation import UnreadableError
from spark_rl.verify.tree import Node
from spark_rl.verify.value import (
    MAX_BITS,
    NoValueError,
    Value,
    add,
    divide,
    multiply,
    negate,
    rational,
    root_of,
)

MAX_FACTORIAL = 3000
MAX_TERMS = 2000
"""Terms of a sum or product, cells of a matrix."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """Cells row by row."""

    cells: tuple[Value, ...]
    columns: int

    @property
    def rows(self) -> int:
        return len(self.cells) // self.columns


def evaluate(node: Node, point: Mapping[str, Value], *, degrees: bool = True) -> Value | Matrix:
    r"""The value of a tree at the working precision; call it within :func:`precise`.

    Args:
        node: the tree.
        point: a value for each variable.
        degrees: whether the degree sign outside of functions is pi / 180, or a unit that counts as 1.

    Raises:
        NoValueError: where there is none.
        UnreadableError: for what is too large, or no mathematics.
        ImpreciseError: if the working precision does not decide.
    """
    if node.kind == "matrix":
        cells = tuple(_scalar(evaluate(part, point, degrees=degrees)) for part in node.parts)
        return Matrix(cells, node.columns)
    if node.kind in ("sum", "product", "negative", "power", "function", "quotient"):
        within = degrees or node.kind == "function"
        parts = [evaluate(part, point, degrees=within) for part in node.parts]
        if any(isinstance(part, Matrix) for part in parts):
            return _with_matrices(node, parts)
        return _combined(node, [_scalar(part) for part in parts])
    return _single(node, point, degrees=degrees)


_EULER = Node("constant", name="e")


def _scalar(value: Value | Matrix) -> Value:
    if isinstance(value, Matrix):
        raise UnreadableError("a matrix where a number is wanted")
    return value


def _combined(node: Node, parts: list[Value]) -> Value:
    if node.kind in ("sum", "product"):
        result = parts[0]
        for part in parts[1:]:
            result = add(result, part) if node.kind == "sum" else multiply(result, part)
        return result
    if node.kind == "negative":
        return negate(parts[0])
    if node.kind == "quotient":
        return divide(parts[0], parts[1])
    if node.kind == "power":
        if node.parts[0] == _EULER:
            return exponential(parts[1])
        return power(parts[0], parts[1], node)
    return function_of(node.name, parts, node)


def _single(node: Node, point: Mapping[str, Value], *, degrees: bool) -> Value:
    if node.kind == "number":
        return rational(node.value)
    if node.kind == "constant":
        return pi() if node.name == "pi" else rational(0, 1) if node.name == "i" else exponential(rational(1))
    if node.kind == "variable":
        return point[node.name]
    if node.kind in ("summation", "multiplication"):
        return _series(node, point, degrees=degrees)
    parts = [_scalar(evaluate(part, point, degrees=degrees)) for part in node.parts]
    if node.kind == "degrees":
        return multiply(parts[0], multiply(pi(), rational(Fraction(1, 180)))) if degrees else parts[0]
    if node.kind == "root":
        return root_of(_positive(parts[0]), parts[1], node)
    if node.kind in ("factorial", "double factorial"):
        number = whole_number(parts[0], MAX_FACTORIAL)
        if number < 0:
            raise NoValueError("a factorial of a negative number")
        return rational(math.factorial(number) if node.kind == "factorial" else math.prod(range(number, 0, -2)))
    if node.kind == "binomial":
        top, bottom = whole_number(parts[0], 10**6), whole_number(parts[1], 10**6)
        if top < 0 or bottom < 0 or min(bottom, top - bottom) * top.bit_length() > MAX_BITS:
            raise UnreadableError("a binomial coefficient beyond the bound")
        return rational(math.comb(top, bottom))
    assert node.kind == "applied"
    return applied(node.name, parts)


def _positive(value: Value) -> int:
    degree = whole_number(value, 64)
    if degree < 1:
        raise NoValueError("a root whose degree is not positive")
    return degree


def _series(node: Node, point: Mapping[str, Value], *, degrees: bool) -> Value:
    first, last = (whole_number(_scalar(evaluate(part, point)), 10**6) for part in node.parts[:2])
    if last - first > MAX_TERMS:
        raise UnreadableError(f"a sum or product of more than {MAX_TERMS} terms")
    adding = node.kind == "summation"
    result = rational(0 if adding else 1)
    for index in range(first, last + 1):
        term = _scalar(evaluate(node.parts[2], {**point, node.name: rational(index)}, degrees=degrees))
        result = add(result, term) if adding else multiply(result, term)
    return result


def _with_matrices(node: Node, parts: list[Value | Matrix]) -> Value | Matrix:
    if node.kind == "function" and node.name == "det" and isinstance(parts[0], Matrix):
        return _determinant(parts[0])
    result = parts[0]
    if node.kind == "negative":
        return _matrix_product(rational(-1), result)
    if node.kind == "sum":
        for part in parts[1:]:
            result = _matrix_sum(result, part)
        return result
    if node.kind == "product":
        for part in parts[1:]:
            result = _matrix_product(result, part)
        return result
    if node.kind == "quotient" and not isinstance(parts[1], Matrix):
        return _matrix_product(divide(rational(1), parts[1]), result)
    if node.kind == "power" and isinstance(result, Matrix) and not isinstance(parts[1], Matrix):
        return _matrix_power(result, whole_number(parts[1], 64))
    raise UnreadableError("an operation that matrices do not have")


def _matrix_sum(first: Value | Matrix, second: Value | Matrix) -> Matrix:
    if not (isinstance(first, Matrix) and isinstance(second, Matrix)):
        raise UnreadableError("a sum of a matrix and a number")
    if (first.columns, first.rows) != (second.columns, second.rows):
        raise UnreadableError("a sum of matrices of different sizes")
    return Matrix(tuple(add(a, b) for a, b in zip(first.cells, second.cells, strict=True)), first.columns)


def _matrix_product(first: Value | Matrix, second: Value | Matrix) -> Value | Matrix:
    if not isinstance(first, Matrix):
        if not isinstance(second, Matrix):
            return multiply(first, second)
        return Matrix(tuple(multiply(first, cell) for cell in second.cells), second.columns)
    if not isinstance(second, Matrix):
        return _matrix_product(second, first)
    if first.columns != second.rows:
        raise UnreadableError("a product of matrices that do not fit")
    cells = []
    for row in range(first.rows):
        for column in range(second.columns):
            total = rational(0)
            for inner in range(first.columns):
                left = first.cells[row * first.columns + inner]
                total = add(total, multiply(left, second.cells[inner * second.columns + column]))
            cells.append(total)
    return Matrix(tuple(cells), second.columns)


def _matrix_power(base: Matrix, exponent: int) -> Matrix:
    if base.rows != base.columns:
        raise UnreadableError("a power of a matrix that is not square")
    if exponent < 0:
        base = _inverse(base)
    size = base.rows
    result: Value | Matrix = Matrix(
        tuple(rational(int(row == column)) for row in range(size) for column in range(size)), size
    )
    for _ in range(abs(exponent)):
        result = _matrix_product(result, base)
    assert isinstance(result, Matrix)
    return result


def _minor(matrix: Matrix, row: int, column: int) -> Matrix:
    cells = tuple(
        cell
        for index, cell in enumerate(matrix.cells)
        if index // matrix.columns != row and index % matrix.columns != column
    )
    return Matrix(cells, matrix.columns - 1)


def _determinant(matrix: Matrix) -> Value:
    if matrix.rows != matrix.columns or matrix.rows > 6:
        raise UnreadableError("a determinant of a matrix that is not square, or too large")
    if matrix.rows == 1:
        return matrix.cells[0]
    total = rational(0)
    for column in range(matrix.columns):
        term = multiply(matrix.cells[column], _determinant(_minor(matrix, 0, column)))
        total = add(total, negate(term) if column % 2 else term)
    return total


def _inverse(matrix: Matrix) -> Matrix:
    determinant = _determinant(matrix)
    if matrix.rows == 1:
        return Matrix((divide(rational(1), determinant),), 1)
    size = matrix.rows
    cells = []
    for row in range(size):
        for column in range(size):
            cofactor = _determinant(_minor(matrix, column, row))
            cells.append(divide(negate(cofactor) if (row + column) % 2 else cofactor, determinant))
    return Matrix(tuple(cells), size)
