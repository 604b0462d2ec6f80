"""What an API key looks like: `rgpt_`, 33 random characters, and a checksum of 6, all base62.

The checksum tells a mistyped or made-up key without asking anybody, and lets scanners of leaked secrets be sure. The
first 6 random characters are shown, so that people recognise a key; the other 27 are 160 bits that are kept nowhere.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
import zlib

MARK = "rgpt_"
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
SECRET_CHARACTERS = 33
CHECKSUM_CHARACTERS = 6
PREFIX_CHARACTERS = len(MARK) + 6
KEY_CHARACTERS = len(MARK) + SECRET_CHARACTERS + CHECKSUM_CHARACTERS


def new_key(session_token: str, once: list[str] | None) -> str:
    """A key that nobody can guess.

    A request with an Idempotency-Key must get the same one when it is sent again, and the database knows only its
    hash. So it is derived from the request, with the session's token as the key of the derivation: that is random
    enough, the client sends it each time, and the database does not know it either.
    """
    if once is None:
        return _key_of(secrets.token_bytes(32))
    request = "\n".join(("rustygpt api key", *once))
    return _key_of(hmac.digest(session_token.encode(), request.encode(), hashlib.sha256))


def is_key(text: str) -> bool:
    """Whether this is a key at all: of the right length, with the right checksum."""
    if len(text) != KEY_CHARACTERS or not text.startswith(MARK) or not text.isascii():
        return False
    return text[-CHECKSUM_CHARACTERS:] == _checksum(text[:-CHECKSUM_CHARACTERS])


def key_prefix(key: str) -> str:
    """What may be shown of a key."""
    return key[:PREFIX_CHARACTERS]


def key_hash(key: str) -> bytes:
    """What the database knows of a key. No text has this hash as a session's token, since no text has the byte 0xff in
    UTF-8: a key, which may do little, must not pass for a session, which may do everything."""
    return hashlib.sha256(b"\xffrustygpt api key\n" + key.encode()).digest()


def _key_of(random: bytes) -> str:
    text = MARK + _base62(int.from_bytes(random, "big"), SECRET_CHARACTERS)
    return text + _checksum(text)


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), CHECKSUM_CHARACTERS)


def _base62(number: int, characters: int) -> str:
    """The last digits of a number."""
    digits = []
    for _ in range(characters):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
