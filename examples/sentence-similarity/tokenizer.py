"""BERT's uncased WordPiece tokenizer, in the standard library alone: text -> token ids.

Words are split off at spaces and punctuation, lower-cased, without accents; each is cut into the
longest pieces that the vocabulary holds (arXiv 1810.04805, section 3, and its reference code).
"""

import unicodedata
from pathlib import Path

MAX_WORD = 100  # characters; a longer word is unknown
CHINESE = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2CEAF), (0xF900, 0xFAFF))


class Tokenizer:
    """`vocabulary` is vocab.txt: one piece a line, its id is its line."""

    def __init__(self, vocabulary: Path) -> None:
        pieces = vocabulary.read_text(encoding="utf-8").splitlines()
        self.ids = {piece: index for index, piece in enumerate(pieces)}

    def encode(self, text: str, limit: int = 128) -> list[int]:
        """[CLS], the text's pieces, [SEP]: at most `limit` ids."""
        pieces = [piece for word in words(text) for piece in self._pieces(word)]
        return [self.ids[name] for name in ("[CLS]", *pieces[: limit - 2], "[SEP]")]

    def _pieces(self, word: str) -> list[str]:
        found: list[str] = []
        start = 0
        while start < len(word) <= MAX_WORD:
            prefix = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((e for e in ends if prefix + word[start:e] in self.ids), None)
            if end is None:
                return ["[UNK]"]
            found.append(prefix + word[start:end])
            start = end
        return found or ["[UNK]"]


def words(text: str) -> list[str]:
    """Lower-case words without accents; every punctuation and Chinese character is its own."""
    spaced = "".join(_cleaned(character) for character in text)
    plain = unicodedata.normalize("NFD", spaced.lower())
    kept = (character for character in plain if unicodedata.category(character) != "Mn")
    return "".join(f" {c} " if _is_punctuation(c) else c for c in kept).split()


def _cleaned(character: str) -> str:
    """A character as it is, a space, or nothing for what cannot be seen."""
    code, kind = ord(character), unicodedata.category(character)
    if any(low <= code <= high for low, high in CHINESE):
        return f" {character} "
    if character in "\t\n\r" or kind == "Zs":
        return " "
    return "" if code == 0xFFFD or kind in ("Cc", "Cf", "Co") else character


def _is_punctuation(character: str) -> bool:
    """ASCII signs count too, even those that Unicode calls symbols."""
    ascii_sign = character.isascii() and character.isprintable() and not character.isalnum()
    return (ascii_sign and character != " ") or unicodedata.category(character).startswith("P")
