"""What the strings of a saved PyTorch program may be: each ends in an evaluation, an import or generated Python.

Operators are those of ATen and of Python's arithmetic; expressions are arithmetic of sizes; structures are nested
tuples, lists and dicts. Everything else is a word.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any, Final

MOST_TEXT: Final = 100_000
MOST_DEPTH: Final = 200
WORD: Final = re.compile(r"[\w.+\-]{0,1000}")
NAME: Final = re.compile(r"([A-Za-z_]\w{0,1000})?")
_SYMBOL = re.compile(r"[a-z]{1,8}\d{1,9}")
_DIGITS = re.compile(r"[\d.eE+\-]{1,40}")
_OPERATOR = re.compile(
    r"torch\.ops\.(?:aten|prims|quantized_decomposed)\.(?P<name>[A-Za-z]\w*|_[A-Za-z]\w*)\.[A-Za-z]\w*"
)
_BITWISE = re.compile(r"torch\.ops\.aten\.__(?:and|or|xor|lshift|rshift)__\.(?:Scalar|Tensor)")
_HIGHER = re.compile(r"torch\.ops\.higher_order\.(?:cond|while_loop|wrap_with_set_grad_enabled|wrap_with_autocast)")
_SYMBOLIC = re.compile(r"torch\.(?:sym_(?:int|float|max|min|not|ite|sum)|_sym_sqrt)|math\.(?:ceil|floor|trunc|sqrt)")
_ARITHMETIC = re.compile(
    r"_operator\.(?:add|sub|mul|floordiv|truediv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|getitem)"
)
_REFUSED_OPERATORS = ("from_file",)
"""Operators that reach beyond the network."""
_FUNCTION = re.compile(
    r"Symbol|Max|Min|Abs|Mod|PythonMod|FloorDiv|CeilDiv|CleanDiv|ModularIndexing|Where|"
    r"CeilToInt|FloorToInt|TruncToInt|RoundToInt|TruncToFloat|ToFloat|IntTrueDiv|FloatTrueDiv|"
    r"PowByNatural|Identity|floor|ceiling|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|Add|Mul|Pow|"
    r"Integer|Rational|Float|Equality|Unequality|LessThan|StrictLessThan|GreaterThan|"
    r"StrictGreaterThan"
)
_CONSTANT_NAMES = ("True", "False", "true", "false", "oo", "int_oo")
_MOST_POWERS, _MOST_EXPONENT = 8, 8
_EXPRESSIONS = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Name, ast.Load, ast.Add, ast.Sub, ast.Mult, ast.Div,
    ast.FloorDiv, ast.Mod, ast.Pow, ast.USub, ast.UAdd, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
    ast.BitAnd, ast.BitOr, ast.Invert, ast.keyword,
)  # fmt: skip
_CONTAINERS = (
    None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict",
    "torch.fx.immutable_collections.immutable_list", "torch.fx.immutable_collections.immutable_dict",
)  # fmt: skip


def is_operator(text: str) -> bool:
    """Return whether `text` names an operator of networks, and nothing else of torch or Python."""
    found = _OPERATOR.fullmatch(text)
    if found is not None:
        return found["name"] not in _REFUSED_OPERATORS
    return any(pattern.fullmatch(text) for pattern in (_ARITHMETIC, _SYMBOLIC, _BITWISE, _HIGHER))


def is_shape_expression(text: str) -> bool:
    """Return whether `text` is plain arithmetic of sizes, so that evaluating it computes a size and nothing else."""
    if len(text) > MOST_TEXT:
        return False
    try:
        tree = ast.parse(text, mode="eval")
        return all(_is_plain(node) for node in ast.walk(tree)) and _has_plain_constants(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _is_plain(node: ast.AST) -> bool:
    match node:
        case ast.Name(id=name):
            return (
                _FUNCTION.fullmatch(name) is not None or name in _CONSTANT_NAMES or _SYMBOL.fullmatch(name) is not None
            )
        case ast.Call(func=ast.Name(id=name)):
            return _FUNCTION.fullmatch(name) is not None
        case ast.Constant(value=value):
            return isinstance(value, int | float | str)
        case _:
            return isinstance(node, _EXPRESSIONS)


def _has_plain_constants(tree: ast.AST) -> bool:
    """Return whether texts are names in ``Symbol('s0')`` or digits in ``Float('0.5')``, and powers small."""
    known: set[int] = set()
    powers = 0
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str(text)) as constant]):
                if not _SYMBOL.fullmatch(text):
                    return False
                known.add(id(constant))
            case ast.Call(func=ast.Name(id="Float"), args=[ast.Constant(value=str(text)) as constant, *_]):
                if not _DIGITS.fullmatch(text):
                    return False
                known.add(id(constant))
            case (
                ast.Call(func=ast.Name(id="Pow" | "PowByNatural"), args=[_, exponent])
                | ast.BinOp(op=ast.Pow(), right=exponent)
            ):
                powers += 1
                if not _is_small(exponent):
                    return False
            case ast.Call(func=ast.Name(id="Symbol" | "Pow" | "PowByNatural")):
                return False
            case _:
                pass
    texts = (n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    return powers <= _MOST_POWERS and all(id(node) in known for node in texts)


def _is_small(exponent: ast.AST) -> bool:
    match exponent:
        case ast.Call(func=ast.Name(id="Integer"), args=[inner]):
            return _is_small(inner)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return _is_small(inner)
        case ast.Constant(value=int(value)):
            return abs(value) <= _MOST_EXPONENT
        case _:
            return False


def is_structure(text: str) -> bool:
    """Return whether `text` describes nested tuples, lists and dicts of plain keys, and nothing that is imported."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], int) and _is_container(value[1])


def _is_container(value: Any, depth: int = 0) -> bool:
    if not isinstance(value, dict) or value.keys() != {"type", "context", "children_spec"} or depth > MOST_DEPTH:
        return False
    children = value["children_spec"]
    if value["type"] not in _CONTAINERS or not isinstance(children, list):
        return False
    if not (value["context"] is None or (isinstance(value["context"], str) and _is_keys(value["context"]))):
        return False
    return all(_is_container(child, depth + 1) for child in children)


def _is_keys(context: str) -> bool:
    try:
        keys = json.loads(context)
    except (ValueError, RecursionError):
        return False
    if keys is None:
        return True
    return isinstance(keys, list) and all(
        isinstance(key, int | float) or (isinstance(key, str) and WORD.fullmatch(key)) for key in keys
    )
