"""Texts and names as ``items.tsv`` and ``users.tsv`` can hold them."""

from __future__ import annotations

import html
import re

import polars as pl

_INVISIBLE = r"[\s\p{Z}\p{Cc}\p{Cf}]"
"""White space, control and format characters (U+200B)."""
_TAGS = (
    "a abbr b big blockquote br center code dd del div dl dt em font h1 h2 h3 h4 h5 h6 hr i iframe img ins "
    "li ol p pre s small span strike strong sub sup table tbody td th thead tr tt u ul"
).replace(" ", "|")
_ELEMENT = re.compile(rf"</?(?:{_TAGS})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_HIDDEN = re.compile(r"<(script|style)\b[^<>]*>.*?(?:</\1>|$)|<!--.*?(?:-->|$)", re.IGNORECASE | re.DOTALL)
_INLINE = re.compile(
    r"</?(?:a|abbr|b|big|em|font|i|s|small|span|strong|sub|sup|tt|u)(?:\s[^<>]*)?/?>", re.IGNORECASE
)

_ENTITY = r"&(?:#\d+|#x[0-9a-f]+|[a-z][a-z0-9]+);"
"""An entity. ``html.unescape`` also takes those without a semicolon, as in "pen&notebook"."""

HTML_SIGN = rf"(?i)</?({_TAGS})(\s[^<>]*)?/?>|{_ENTITY}"
"""What a title that looks like HTML contains."""


def stripped_of_html(text: str) -> str:
    """The text without tags and with its entities decoded, also where they were escaped twice."""
    for _ in range(3):
        plain = _ELEMENT.sub(" ", _INLINE.sub("", _HIDDEN.sub(" ", text)))
        plain = re.sub(_ENTITY, lambda entity: html.unescape(entity[0]), plain, flags=re.IGNORECASE)
        if plain == text:
            break
        text = plain
    return text


def cleaned_texts(texts: pl.Series, *, strip_html: bool) -> pl.Series:
    """Texts of one line each; a text without a visible character is null.

    Args:
        texts: String.
        strip_html: whether to remove tags, decode entities, and reduce white space to single spaces.
            Otherwise only tabs and line ends, which the files cannot hold, become spaces.
    """
    if strip_html:
        marked = texts.str.contains(r"[<&]").fill_null(False)
        if marked.any():
            replaced = pl.Series([stripped_of_html(text) for text in texts.filter(marked)], dtype=pl.String)
            texts = texts.clone().scatter(marked.arg_true(), replaced)
        texts = texts.str.replace_all(r"[\s\p{Z}\p{Cc}]+", " ").str.strip_chars()
    else:
        texts = texts.str.replace_all(r"\r?[\n\t\r\x0b\x0c\x00]", " ")
    visible = ~texts.str.contains(rf"^{_INVISIBLE}*$").fill_null(True)
    return texts.set(~visible, None)


def name_expression(column: str) -> pl.Expr:
    """A column of names without white space at the ends; null if nothing is left. Unicode stays as it is."""
    name = pl.col(column).str.strip_chars()
    return pl.when(name != "").then(name)


def mapped_names(names: pl.Series, pattern: str) -> tuple[pl.Series, int]:
    """Names in which each match of ``pattern`` is an underscore, still distinct.

    A name that another item has already is continued with ``_2``, ``_3``, … in the order of the names.

    Args:
        names: distinct names, String.
        pattern: regular expression of what a name cannot hold.

    Returns:
        The names, and how many of them have changed.
    """
    wrong = names.str.contains(pattern)
    if not wrong.any():
        return names, 0
    taken = set(names.filter(~wrong))
    replaced = []
    for name in names.filter(wrong).str.replace_all(pattern, "_"):
        new, number = name, 1
        while new in taken:
            number += 1
            new = f"{name}_{number}"
        taken.add(new)
        replaced.append(new)
    return names.clone().scatter(wrong.arg_true(), pl.Series(replaced, dtype=pl.String)), len(replaced)


ITEM_NAME = rf"{_INVISIBLE}+"
"""What an item name cannot hold: a history separates names by white space."""
IMAGE_NAME = rf"({_INVISIBLE}|[/\\])+"
"""The same, for names of image files."""
USER_NAME = r"[\p{Cc}\x{2028}\x{2029}]+"
"""What a user name cannot hold."""
