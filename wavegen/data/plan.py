"""The plan of a store: every recording, what it is called and which split it is in, in its final order.

Kept in a small database beside the unfinished store, because three million recordings do not fit
into Python objects comfortably. A plan is cheap next to decoding, so it is made anew each time; its
fingerprint tells whether the recordings are still the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from wavegen.config import PrepareConfig
from wavegen.data.splits import check_splits, split_of
from wavegen.data.texts import Texts
from wavegen.errors import BadInputError, ConfigError, did_you_mean

NAMES = ("label", "speaker", "id", "text")  # what a pattern or a manifest can say about a recording
MANIFEST_KEYS = ("path", *NAMES, "split")


class Item(NamedTuple):
    """One recording of a plan."""

    source: str  # path below the data folder, "/" separated
    id: str
    label: str | None
    speaker: str | None
    text: str | None
    split: str
    reason: str | None  # why it is left out, known before it is opened
    bytes: int
    modified: int  # ns


class Plan:
    """All items of a data folder under a recipe, numbered from 0 in their final order."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self.num_items: int = database.execute("SELECT COUNT(*) FROM plan").fetchone()[0]
        # `sources` is equal for equal folders anywhere; `fingerprint` also notices a file written again.
        sources, fingerprint = hashlib.sha256(), hashlib.sha256()
        for item in self.items():
            described = json.dumps(item._replace(reason=None, modified=0)).encode()
            sources.update(described)
            fingerprint.update(described + str(item.modified).encode())
        self.sources = sources.hexdigest()
        self.fingerprint = fingerprint.hexdigest()

    def items(self, start: int = 0) -> Iterator[Item]:
        """The items from number `start` on."""
        query = f"SELECT {', '.join(Item._fields)} FROM plan WHERE number > ? ORDER BY number"
        rows = self._database.execute(query, (start,))
        return (Item(*row) for row in rows)

    def close(self) -> None:
        self._database.close()


def build_plan(file: Path, data_dir: Path, config: PrepareConfig, leave_out: Path) -> Plan:
    """List the recordings of a folder.

    Args:
        file: where the database goes; replaced.
        data_dir: folder of recordings.
        config: glob and pattern, or manifest; names; splits.
        leave_out: folder to leave out, because the store itself is written there.

    Raises:
        BadInputError: no such folder, or nothing in it.
        ConfigError: a pattern, manifest or split rule that cannot be used; two recordings of one id.
    """
    if not data_dir.is_dir():
        raise BadInputError(f"there is no folder {data_dir}; --data names the folder of the recordings")
    items = _from_manifest(data_dir, config) if config.manifest else _from_names(data_dir, config, leave_out)
    file.unlink(missing_ok=True)
    database = sqlite3.connect(file)
    # The plan is made anew after a crash, so it needs no journal.
    database.execute("PRAGMA journal_mode = OFF")
    database.execute("PRAGMA synchronous = OFF")
    columns = ", ".join(Item._fields)
    try:
        database.execute(f"CREATE TABLE scan ({columns})")
        marks = ", ".join("?" * len(Item._fields))
        database.executemany(f"INSERT INTO scan VALUES ({marks})", items)
        order = "rowid" if config.manifest else "source"
        database.execute(f"CREATE TABLE plan (number INTEGER PRIMARY KEY, {columns})")
        database.execute(f"INSERT INTO plan ({columns}) SELECT {columns} FROM scan ORDER BY {order}")
        database.execute("DROP TABLE scan")
        _check_unique(database)
        return Plan(database)
    except BaseException:
        database.close()
        raise


def _check_unique(database: sqlite3.Connection) -> None:
    found = database.execute("SELECT id, MIN(source), MAX(source), COUNT(*) FROM plan WHERE reason IS NULL "
                             "GROUP BY id HAVING COUNT(*) > 1 ORDER BY id LIMIT 1").fetchone()
    if found is not None:
        raise ConfigError(f'{found[3]} recordings have the id "{found[0]}", among them {found[1]} and '
                          f"{found[2]}; an id must be unique: change the group `id` of prepare.pattern or "
                          "the manifest")


def _from_names(data_dir: Path, config: PrepareConfig, leave_out: Path) -> Iterator[Item]:
    """Items of the files that match `glob`, described by the groups of `pattern`."""
    pattern = _compile(config.pattern, "pattern") if config.pattern is not None else None
    rules = [(label, _compile(expression, f"label_rules, {label}", re.IGNORECASE))
             for label, expression in config.label_rules]
    groups = set(pattern.groupindex) if pattern else set()
    if rules and "label" in groups:
        raise ConfigError("prepare.label_rules and the group `label` of prepare.pattern both name the label; "
                          "keep one of the two")
    check_splits(config, groups | set(NAMES))
    texts = Texts(data_dir, config, groups)
    steps = config.glob.split("/")
    num_found, num_matched, example = 0, 0, ""
    for source, entry in _walk(data_dir, leave_out):
        if not _matches(source.split("/"), steps):
            continue
        if not _is_utf8(source):  # it would break every file it is written into
            source = source.encode("utf-8", "backslashreplace").decode()
            yield _item(config, source, {}, entry, "its name is not valid UTF-8; rename it")
            continue
        num_found, example = num_found + 1, source
        match = pattern.fullmatch(source) if pattern else None
        num_matched += match is not None
        said = match.groupdict() if match else {}
        reason = "its name does not match prepare.pattern" if pattern and not match else None
        if rules:
            said["label"] = next((label for label, rule in rules if rule.search(source)), None)
            if said["label"] is None:
                reason = reason or "no expression of prepare.label_rules is found in its name"
        if reason is None:
            said["text"] = texts.of(source, {"id": source, **said})
        yield _item(config, source, said, entry, reason)
    if num_found == 0:
        raise BadInputError(f'no file below {data_dir} matches prepare.glob "{config.glob}"')
    if pattern and num_matched == 0:
        raise ConfigError(f"none of the {num_found} files below {data_dir} matches prepare.pattern "
                          f'"{config.pattern}", which must match the whole path, for example "{example}"')
    texts.report()


def _compile(expression: str, key: str, flags: int = 0) -> re.Pattern[str]:
    try:
        return re.compile(expression, flags)
    except re.error as error:
        raise ConfigError(f"prepare.{key} is not a regular expression: {error}") from error


def _from_manifest(data_dir: Path, config: PrepareConfig) -> Iterator[Item]:
    """Items of the lines of a manifest, in its order."""
    check_splits(config, NAMES)
    if config.label_rules:
        raise ConfigError("prepare.label_rules is for file names; with prepare.manifest the manifest names the label")
    if config.text_file is not None or config.text_table is not None:
        raise ConfigError("prepare.text_file and prepare.text_table are for file names; with prepare.manifest the "
                          "manifest holds the text")
    file = data_dir / str(config.manifest)
    if not file.is_file():
        raise BadInputError(f"there is no manifest {file}; prepare.manifest names a file below --data")
    num_lines = 0
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                said = _manifest_line(line, f"{file} line {number}")
                source, split = said.pop("path"), said.pop("split", None)
                item = _item(config, str(source), said, data_dir / str(source), None)
                yield item._replace(split=split) if split else item
                num_lines += 1
    if num_lines == 0:
        raise BadInputError(f"manifest {file} is empty; it needs one JSON object a line")


def _manifest_line(line: bytes, where: str) -> dict[str, str | None]:
    try:
        said = json.loads(line.decode("utf-8-sig"))
    except ValueError as error:  # not UTF-8, or not JSON
        raise ConfigError(f"{where} is not JSON: {error}") from error
    if not isinstance(said, dict) or not isinstance(said.get("path"), str):
        raise ConfigError(f'{where} needs a "path"; its keys are {", ".join(MANIFEST_KEYS)}')
    for key, value in said.items():
        if key not in MANIFEST_KEYS:
            raise ConfigError(f'{where}: unknown key "{key}"; {did_you_mean(key, MANIFEST_KEYS)}')
        if isinstance(value, int) and not isinstance(value, bool):
            said[key] = str(value)
        elif not isinstance(value, str | None) or not _is_utf8(value or ""):
            raise ConfigError(f'{where}: "{key}" must be text, found {value!r}')
    parts = said["path"].split("/")
    if said["path"].startswith("/") or ".." in parts:
        raise ConfigError(f'{where}: path "{said["path"]}" must lie below the data folder')
    return said


def _item(config: PrepareConfig, source: str, said: dict[str, str | None], file: os.DirEntry[str] | Path,
          reason: str | None) -> Item:
    label, speaker = said.get("label"), said.get("speaker")
    name = said.get("id") or source
    reason = (reason or _unknown("label", label, config.labels)
              or _unknown("speaker", speaker, config.speakers))
    try:
        found = file.stat()
        num_bytes, modified = found.st_size, found.st_mtime_ns
    except (OSError, ValueError):
        num_bytes, modified = 0, 0  # reading it will say why
    split = split_of(config, name, {**said, "id": name})
    return Item(source, name, label, speaker, said.get("text"), split, reason, num_bytes, modified)


@lru_cache(maxsize=1024)
def _unknown(kind: str, name: str | None, known: tuple[str, ...] | None) -> str | None:
    if known is None or name is None or name in known:
        return None
    return f'its {kind} "{name}" is not in prepare.{kind}s; {did_you_mean(name, known)}'


def _walk(data_dir: Path, leave_out: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every file below a folder, in no order, but hidden ones; a folder linked twice is entered once."""
    folders, seen = [(os.fspath(data_dir), "")], set()
    skipped = os.path.realpath(leave_out)
    while folders:
        folder, prefix = folders.pop()
        identity = os.path.realpath(folder)
        if identity in seen or identity == skipped:
            continue
        seen.add(identity)
        try:
            entries = os.scandir(folder)
        except OSError as error:
            raise BadInputError(f"folder {folder} cannot be read: {error.strerror}") from error
        with entries:
            for entry in entries:
                # Also the "._clip.wav" that some systems put beside every clip.
                if entry.name.startswith("."):
                    continue
                source = prefix + entry.name
                if _is_folder(entry):
                    folders.append((entry.path, source + "/"))
                else:
                    yield source, entry


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _matches(parts: list[str], steps: list[str]) -> bool:
    """Whether a path, split at "/", fits a glob; `**` spans any number of folders, case does not count."""
    if not steps:
        return not parts
    if steps[0] == "**":
        return any(_matches(parts[skip:], steps[1:]) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0].lower(), steps[0].lower()) and _matches(parts[1:], steps[1:])


def differences(found: Any, wanted: Any, where: str = "") -> list[str]:
    """Where two plain values differ, one line each: `prepare.peak is 0.9 there, 0.8 here`."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = [*found, *(key for key in wanted if key not in found)]
        pairs = ((found.get(key), wanted.get(key), f"{where}.{key}" if where else str(key)) for key in keys)
        return [line for pair in pairs for line in differences(*pair)]
    return [] if found == wanted else [f"{where} is {json.dumps(found)} there, {json.dumps(wanted)} here"]
