"""Where things lie, for tests at any depth of the tree."""

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
SUPPORT = TESTS / "support"
FIXTURES = TESTS / "fixtures"
GOLDEN = TESTS / "golden"
NLTK_DATA = TESTS / "nltk_data"
