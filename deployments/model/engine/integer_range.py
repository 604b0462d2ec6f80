"""A grammar's pattern for the integers between two bounds."""

from __future__ import annotations

# What integers have whose bound is not given, and bounds at most.
USUAL_DIGITS, MOST_DIGITS = 16, 40


def integers(least: int | None, most: int | None) -> str:
    """Alternatives, in GBNF and in Python's verbose regular expressions, of all integers from `least` to `most` as JSON
    writes them; where a bound is not given, those of USUAL_DIGITS digits, or one more than the other bound has. Raises
    ValueError where there is none, or a bound has more than MOST_DIGITS digits."""
    largest = max(abs(least or 0), abs(most or 0))
    if largest >= 10**MOST_DIGITS:
        raise ValueError(f"limits of integers have at most {MOST_DIGITS} digits")
    widest = 10 ** max(USUAL_DIGITS, len(str(largest)) + 1) - 1
    low = -widest if least is None else least
    high = widest if most is None else most
    if low > high:
        raise ValueError(f"no integer is at least {low} and at most {high}")
    parts: list[str] = []
    if high >= 0:
        parts += _from_to(max(low, 0), high)
    if low < 0:
        parts += [f"[-] ({negative})" for negative in _from_to(max(1, -high), -low)]
    return " | ".join(parts)


def _from_to(least: int, most: int) -> list[str]:
    """Of numbers that are not negative; one alternative for each number of digits."""
    lengths = range(len(str(least)), len(str(most)) + 1)
    return [
        _same_length(str(max(least, 10 ** (digits - 1) if digits > 1 else 0)), str(min(most, 10**digits - 1)))
        for digits in lengths
    ]


def _same_length(least: str, most: str) -> str:
    rest = len(least) - 1
    if not rest:
        return _digit(least, most)
    if least[1:] == "0" * rest and most[1:] == "9" * rest:
        return f"{_digit(least[0], most[0])} [0-9]{{{rest}}}"
    if least[0] == most[0]:
        return f"[{least[0]}] ({_same_length(least[1:], most[1:])})"
    parts = [f"[{least[0]}] ({_same_length(least[1:], '9' * rest)})"]
    if int(least[0]) + 1 < int(most[0]):
        parts.append(f"{_digit(str(int(least[0]) + 1), str(int(most[0]) - 1))} [0-9]{{{rest}}}")
    parts.append(f"[{most[0]}] ({_same_length('0' * rest, most[1:])})")
    return " | ".join(parts)


def _digit(least: str, most: str) -> str:
    return f"[{least}]" if least == most else f"[{least}-{most}]"
