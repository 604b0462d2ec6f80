"""A grammar's pattern for the integers between two bounds."""

from __future__ import annotations

# Of a bound that is not given: what the pattern of any integer has.
MOST_DIGITS = 16


def integers(least: int | None, most: int | None) -> str:
    """Alternatives, in GBNF and in Python's verbose regular expressions, of all integers from `least` to `most` as JSON
    writes them; of a bound that is not given those of MOST_DIGITS digits. Raises ValueError where there is none."""
    widest = 10 ** max(MOST_DIGITS, len(str(least or 0)), len(str(most or 0))) - 1
    least, most = -widest if least is None else least, widest if most is None else most
    if least > most:
        raise ValueError(f"no integer is at least {least} and at most {most}")
    parts: list[str] = []
    if most >= 0:
        parts += _from_to(max(least, 0), most)
    if least < 0:
        parts += [f"[-] ({negative})" for negative in _from_to(max(1, -most), -least)]
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
