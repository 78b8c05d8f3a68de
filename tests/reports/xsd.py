"""As much of XML Schema as that of JUnit uses: elements, attributes, types with a pattern, sequence and choice."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

_XS = "{http://www.w3.org/2001/XMLSchema}"
_KNOWN = {f"{_XS}{tag}" for tag in ("element", "complexType", "simpleType", "sequence", "choice", "attribute")}
_KNOWN |= {f"{_XS}{tag}" for tag in ("schema", "restriction", "pattern")}


class Schema:
    def __init__(self, path: Path) -> None:
        root = ElementTree.parse(path).getroot()
        unknown = {node.tag for node in root.iter()} - _KNOWN
        assert not unknown, f"{path.name} uses {unknown}, which is not checked here"
        self.elements = {e.get("name"): e for e in root.findall(f"{_XS}element")}
        self.types = {t.get("name"): t for t in [*root.findall(f"{_XS}complexType"), *root.findall(f"{_XS}simpleType")]}

    def errors(self, text: str) -> list[str]:
        """What of a document does not fit, one sentence each."""
        root = ElementTree.fromstring(text.encode())
        if root.tag not in self.elements:
            return [f"<{root.tag}> is no root"]
        return self._element(root, self.elements[root.tag], root.tag)

    def _element(self, node: Element, declared: Element, where: str) -> list[str]:
        kind = declared.find(f"{_XS}complexType")
        kind = self.types.get(declared.get("type")) if kind is None else kind
        if kind is None:
            return [f"{where}: <{child.tag}> in a plain text" for child in node]
        found = self._attributes(node, kind, where)
        if kind.get("mixed") != "true" and ((node.text or "").strip() or any((c.tail or "").strip() for c in node)):
            found.append(f"{where}: text where only elements may be")
        return [*found, *self._children(node, kind, where)]

    def _attributes(self, node: Element, kind: Element, where: str) -> list[str]:
        declared = {a.get("name"): a for a in kind.findall(f"{_XS}attribute")}
        found = [f"{where}: attribute {name!r} is unknown" for name in node.attrib.keys() - declared.keys()]
        needed = [n for n, a in declared.items() if a.get("use") == "required" and n not in node.attrib]
        found += [f"{where}: attribute {name!r} is missing" for name in needed]
        for name, value in node.items():
            simple = self.types.get(declared[name].get("type")) if name in declared else None
            pattern = simple.find(f".//{_XS}pattern").get("value") if simple is not None else ".*"
            if not re.fullmatch(pattern, value, re.DOTALL):
                found.append(f"{where}: {name}={value!r} does not match {pattern}")
        return found

    def _children(self, node: Element, kind: Element, where: str) -> list[str]:
        declared = {e.get("ref") or e.get("name"): e for e in kind.iter(f"{_XS}element")}
        many = {n for n, e in declared.items() if e.get("maxOccurs") == "unbounded"}
        if any(group.get("maxOccurs") == "unbounded" for group in kind.iter(f"{_XS}choice")):
            many = set(declared)
        found = []
        for number, child in enumerate(node):
            inside = f"{where}/{child.tag}[{number}]"
            if child.tag not in declared:
                found.append(f"{inside}: may not stand here")
                continue
            if child.tag not in many and len(node.findall(child.tag)) > 1:
                found.append(f"{inside}: may stand here once")
            found += self._element(child, self.elements.get(child.tag, declared[child.tag]), inside)
        return found
