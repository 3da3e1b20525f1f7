"""Reading text, YAML and JSON that other people may have written: nothing is run, or unfolded beyond bounds.

Every reader of such a file goes through here. Whatever a text holds, a `ValueError` of one line or plain values come
out of it: null, true and false, numbers, words, lists and mappings. Which file it was, the caller says.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NoReturn

import yaml

MOST_BYTES = 4_000_000  # of a file, where its reader does not say otherwise
MOST_YAML_BYTES = 1_000_000  # a published network takes some thousand
MOST_NODES = 50_000  # values of a YAML text, what an alias stands for counted each time
MOST_NESTED = 40  # lists and mappings in one another; a space has 8
MOST_DIGITS = 40  # characters of a number
LONGEST_SHOWN = 160  # characters of a value in a message

NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
MERGE_TAG = "tag:yaml.org,2002:merge"
TIMESTAMP_TAG = "tag:yaml.org,2002:timestamp"
EXPONENT = re.compile(r"[-+]?([0-9][0-9_]*)([.][0-9_]*)?[eE][-+]?[0-9]+$")  # YAML 1.1 knows no 1e-3


def read_text(file: Path, most_bytes: int = MOST_BYTES) -> str:
    """The text of a file, UTF-8.

    Raises:
        ValueError: it cannot be read, is no regular file (a pipe or a device may have no end), or is too large.
    """
    try:
        if file.exists() and not file.is_file() and not file.is_dir():
            raise ValueError("cannot be read: it is not a file")
        with file.open("rb") as stream:
            content = stream.read(most_bytes + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None
    if len(content) > most_bytes:
        raise ValueError(f"is larger than what is read of such a file: {most_bytes:,} bytes")
    try:
        return content.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not text in UTF-8: byte {error.start}") from None


def is_file(file: Path) -> bool:
    """Whether a path that anybody may have written is that of a regular file."""
    try:
        return file.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def parse_yaml(text: str) -> Any:
    """What a YAML text says.

    Tags are refused, aliases and merges are not: what they stand for counts as if it were written out.

    Numbers may be infinite or NaN: who reads on holds every number against its limits.

    Raises:
        ValueError: not YAML, a key that is there twice, or more than the bounds allow.
    """
    if len(text) > MOST_YAML_BYTES:
        raise ValueError(f"not YAML that is read: it is longer than {MOST_YAML_BYTES:,} characters")
    try:
        return yaml.load(text, Loader=_BoundedLoader)
    except yaml.MarkedYAMLError as error:
        what = ", ".join(filter(None, (error.context, error.problem)))
        where = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        raise ValueError(f"not YAML: {one_line(what)}{where}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"not YAML: {_reason(error)}") from None


def parse_json(text: str) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: not JSON, a key that is there twice, a number that is not finite or too long, words that are no
            text, or lists and mappings nested too deeply.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=_finite,
        )
        _check_nested(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {_reason(error)}") from None
    return value


def parse_json_line(text: str) -> Any:
    """What a line of many says: as `parse_json`, in half the time.

    Infinite numbers are let through, since programs of ours write them, and so is any depth that Python can read: who
    reads lines looks at the type of all that is kept.

    Raises:
        ValueError: not JSON, or words that are no text.
    """
    try:
        value = json.loads(text)
        if "\\ud" in text or "\\uD" in text:  # what can only be written so: half a character, which no file can hold
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {_reason(error)}") from None
    return value


def nodes_of(value: Any) -> int:
    """The values that a value is made of, itself included; what is there twice is counted twice."""
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return 1 + sum(map(nodes_of, parts))


def shown(value: Any) -> str:
    """A value in a message: its repr, the middle left out where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number in it has more digits than Python writes, or it holds itself
        return f"a {type(value).__name__} that is too long to be shown"
    half = LONGEST_SHOWN // 2
    return text if len(text) <= LONGEST_SHOWN else f"{text[:half]} ... {text[-half:]}"


def said(word: Any) -> str:
    """A key or a value in a message as a person writes it; its repr, where that would not be one short line."""
    return word if isinstance(word, str) and word.isprintable() and len(word) <= LONGEST_SHOWN else shown(word)


def one_line(text: str, longest: int = 1000) -> str:
    """A message in one line, its middle left out where it is long."""
    words = " ".join(text.split())
    return words if len(words) <= longest else f"{words[: longest // 2]} ... {words[-longest // 2 :]}"


class _BoundedLoader(yaml.SafeLoader):
    """The safe loader within the bounds; it also refuses a key that is written twice instead of taking the last one."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nested = self._nodes = 0
        self._of_anchor: dict[str, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next node of the text, counted before it is made."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in self.anchors and event.anchor not in self._of_anchor:
                _refuse("what holds itself is not allowed", event.start_mark)
            self._count(self._of_anchor.get(event.anchor, 0), event)
            return super().compose_node(parent, index)
        if getattr(event, "tag", None) is not None:
            _refuse(f"the tag {event.tag} is not allowed", event.start_mark)
        before = self._nodes
        self._count(1, event)
        self._nested += 1
        if self._nested > MOST_NESTED:
            _refuse(f"more than {MOST_NESTED} lists and mappings in one another", event.start_mark)
        node = super().compose_node(parent, index)
        self._nested -= 1
        if event.anchor is not None:
            self._of_anchor[event.anchor] = self._nodes - before
        if isinstance(node, yaml.ScalarNode):
            _check_scalar(node)
        return node

    def _count(self, nodes: int, event: yaml.Event) -> None:
        self._nodes += nodes
        if self._nodes > MOST_NODES:
            _refuse(f"more than {MOST_NODES:,} values, what aliases stand for included", event.start_mark)

    def construct_document(self, node: yaml.Node) -> Any:
        """The value of the whole text."""
        left, met = [node], set()
        while left:
            each = left.pop()
            if id(each) in met or isinstance(each, yaml.ScalarNode):
                continue
            met.add(id(each))
            if isinstance(each, yaml.MappingNode):
                self._check_keys(each)
                left += [part for pair in each.value for part in pair]
            elif isinstance(each, yaml.SequenceNode):
                left += each.value
        return super().construct_document(node)

    def _check_keys(self, node: yaml.MappingNode) -> None:
        """Before what is merged into a mapping is written out: that may be there again."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE_TAG:
                value = self.construct_object(key)
                if value in seen:  # 1 and 1.0 are one key, and so are 1 and true
                    _refuse(f"the key {shown(key.value)} is there twice", key.start_mark)
                seen.add(value)


_BoundedLoader.yaml_implicit_resolvers = {  # dates are words: runs are named by them
    first: [(tag, pattern) for tag, pattern in resolvers if tag != TIMESTAMP_TAG]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_BoundedLoader.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+0123456789"))


def _check_scalar(node: yaml.ScalarNode) -> None:
    if node.tag in NUMBER_TAGS and len(node.value) > MOST_DIGITS:
        _refuse(f"a number of {len(node.value):,} characters", node.start_mark)
    if not node.value.isascii():
        try:
            node.value.encode()
        except UnicodeEncodeError:
            _refuse("half a character is no text", node.start_mark)


def _refuse(why: str, mark: yaml.Mark | None) -> NoReturn:
    raise yaml.constructor.ConstructorError(None, None, why, mark)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {shown(next(key for key in keys if keys.count(key) > 1))} is there twice")
    return value


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits):,} characters")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {shown(digits)} is not finite")
    return value


def _check_nested(value: Any) -> None:
    level, nested = [value], 0
    while level := [part for each in level for part in _parts(each)]:
        nested += 1
        if nested > MOST_NESTED:
            raise ValueError(f"more than {MOST_NESTED} lists and mappings in one another")


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, str) and not value.isascii():
        value.encode()  # UnicodeEncodeError: half a character
    return value if isinstance(value, list) else []


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return "half a character is no text" if isinstance(error, UnicodeError) else one_line(str(error))
