"""What a developer has who begins: an address, a key, and a model's name."""

from __future__ import annotations

import pytest

from tests.support.person import Person
from tests.support.product import Product

MODEL = "default"
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 30},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}


@pytest.fixture(scope="session")
def developer(admin: Person) -> Person:
    """Somebody who made a key."""
    return admin.invite("developer")


@pytest.fixture(scope="session")
def api_key(developer: Person) -> str:
    """A key for everything under /v1."""
    made = developer.call("POST", "/api/keys", {"name": "clients", "scopes": ["v1.read", "v1.write"]}, 201)
    return made["key"]


@pytest.fixture(scope="session")
def base_url(product: Product) -> str:
    """What is set as the base URL of OpenAI clients."""
    return f"{product.url}/v1"
