"""What people in the shop write, search for and buy: enough words to look alive."""

from __future__ import annotations

from pathlib import Path
from random import Random

import yaml

__all__ = [
    "AGENTS",
    "CITIES_NEARBY",
    "FIRST_NAMES",
    "JOBS",
    "LAST_NAMES",
    "MODELS",
    "PARTNERS",
    "PATHS",
    "PRODUCTS",
    "QUERIES",
    "STREETS",
    "sentence",
]

_LISTS = yaml.safe_load((Path(__file__).parent / "words.yaml").read_text(encoding="utf-8"))
FIRST_NAMES: list[str] = _LISTS["first_names"]
LAST_NAMES: list[str] = _LISTS["last_names"]
STREETS: list[str] = _LISTS["streets"]
_TALK: list[str] = _LISTS["talk"]
PRODUCTS = tuple(
    f"{adjective} {noun}"
    for adjective in ("Oak", "Linen", "Copper", "Glass", "Wool", "Marble", "Bamboo", "Enamel")
    for noun in ("lamp", "kettle", "chair", "blanket", "mug", "clock", "shelf", "basket", "mirror", "tray")
)
QUERIES = (
    "oak lamp",
    "wool blanket grey",
    "kettle whistle",
    "gift under 30",
    "small mirror",
    "tea set for two",
    "return policy",
    "bamboo shelf 80 cm",
)
AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_6) AppleWebKit/605.1.15 Version/18.0 Safari/605.1.15",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 Chrome/141.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0",
)
MODELS = (
    ("Pixel 9", "Android 15"),
    ("iPhone 16", "iOS 18"),
    ("MacBook Air", "macOS 14"),
    ("ThinkPad T14", "Windows 11"),
    ("Galaxy Tab S9", "Android 14"),
)
JOBS = ("teacher", "nurse", "carpenter", "engineer", "student", "translator", "gardener", None, None)
PARTNERS = (
    ("adreach", "audience segment", ("home and garden", "frequent buyer", "new parent", "do-it-yourself")),
    ("statly", "analytics score", ("churn low", "churn medium", "churn high")),
    ("friendbook", "social profile", ("public profile", "friends 100-200", "friends over 200")),
)
PATHS = ("/", "/search", "/cart", "/account", "/orders", "/community", "/help", "/community/new", "/checkout")
CITIES_NEARBY = {
    "DE": "Central Germany",
    "AT": "Eastern Austria",
    "CH": "Northern Switzerland",
    "NL": "Utrecht area",
    "FR": "Rhône",
}


def sentence(random: Random, words: int) -> str:
    """That many words, with a capital and a full stop."""
    return " ".join(random.choices(_TALK, k=words)).capitalize() + "."
