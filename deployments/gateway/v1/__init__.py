"""The API of OpenAI and Anthropic: any client of theirs works unchanged."""
