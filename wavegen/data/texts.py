"""What is said in a recording, from the files a corpus keeps beside it: `prepare.text_file`, `prepare.text_table`.

    text_file:  '{root}txt/{speaker}/{id}.txt'    one file a recording
    text_table: '{root}metadata.csv'              lines `id|text|normalised text`, the last one that is not empty

Names in braces are groups of `prepare.pattern`. A vocoder learns nothing from texts: a recording without
one is taken all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from string import Formatter

from wavegen.config import PrepareConfig
from wavegen.errors import ConfigError, did_you_mean

logger = logging.getLogger(__name__)


class Texts:
    """Finds the text of one recording after the other.

    Args:
        data_dir: folder of the recordings.
        config: `text_file` and `text_table`.
        groups: names that a recording's file name can say.

    Raises:
        ConfigError: both are given, or a name in braces is no group of the pattern.
    """

    def __init__(self, data_dir: Path, config: PrepareConfig, groups: Collection[str]) -> None:
        self._data, self._file, self._table = data_dir, config.text_file, config.text_table
        self._tables: dict[Path, dict[str, str]] = {}
        self._num_missing, self._first = 0, ""
        if self._file is not None and self._table is not None:
            raise ConfigError("prepare.text_file and prepare.text_table both say what is spoken; keep one of the two")
        for key, template in (("text_file", self._file), ("text_table", self._table)):
            if template is not None:
                _check_template(key, template, {*groups, "id"})

    def of(self, source: str, said: Mapping[str, str | None]) -> str | None:
        """The text of a recording, None if it has none or the corpus is said to have none.

        Args:
            source: path below the data folder.
            said: groups its name fills, `id` among them.
        """
        template = self._file if self._file is not None else self._table
        if template is None:
            return said.get("text")
        place = self._data / template.format_map({name: value or "" for name, value in said.items()})
        if self._file is not None:
            text = _read(place)
        else:
            if place not in self._tables:
                self._tables[place] = _read_table(place)
            text = self._tables[place].get(said.get("id") or "", "")
        if not text:
            self._num_missing, self._first = self._num_missing + 1, self._first or source
        return text or None

    def report(self) -> None:
        """Log how many recordings were without a text."""
        if self._num_missing:
            logger.warning("%d recordings have no text, the first is %s; see prepare.text_file and prepare.text_table",
                           self._num_missing, self._first)


def _check_template(key: str, template: str, groups: Collection[str]) -> None:
    try:
        steps = list(Formatter().parse(template))
    except ValueError as error:
        raise ConfigError(f'prepare.{key} "{template}" cannot be read: {error}') from error
    for _, name, form, conversion in steps:
        if name is not None and (name not in groups or form or conversion):
            raise ConfigError(f'prepare.{key}: the pattern has no group "{name}"; {did_you_mean(name, sorted(groups))}')


def _read(place: Path) -> str:
    try:
        return " ".join(place.read_bytes().decode("utf-8-sig").split())
    except (OSError, ValueError):  # missing, or not UTF-8
        return ""


def _read_table(place: Path) -> dict[str, str]:
    """Texts by id; lines that are none are left out."""
    try:
        lines = place.read_bytes().decode("utf-8-sig").splitlines()
    except (OSError, ValueError):
        return {}
    rows = [[" ".join(cell.split()) for cell in line.split("|")] for line in lines]
    return {row[0]: next(filter(None, reversed(row[1:])), "") for row in rows if len(row) > 1}
