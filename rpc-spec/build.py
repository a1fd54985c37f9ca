#!/usr/bin/env python3
"""Writes openrpc.json: the methods that a BlockRaFT node serves, in OpenRPC 1.2.6.

    build.py EXECUTION_APIS    a checkout of ethereum/execution-apis (CC0)

Methods and schemas of Ethereum are taken from there as they are, without the examples; blockraft.yaml
names those that are served and describes the ones that the specification does not have. The result is
committed; a test in crates/rpc compares its methods with those that are registered. Needs PyYAML.
"""

import json
import pathlib
import sys

import yaml

HERE = pathlib.Path(__file__).parent
NAMESPACES = ("eth", "debug", "txpool")


def load(folder):
    for path in sorted(folder.glob("*.yaml")):
        yield yaml.safe_load(path.read_text())


def references(value):
    """The names of all schemas that a value refers to."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner.rsplit("/", 1)[1]
            else:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def main(source):
    own = yaml.safe_load((HERE / "blockraft.yaml").read_text())
    schemas = {}
    for part in load(source / "schemas"):
        schemas.update(part)
    schemas.update(own["schemas"])
    upstream = {
        method["name"]: method
        for namespace in NAMESPACES
        for part in load(source / namespace)
        for method in part
    }

    methods = own["methods"] + [upstream[name] for name in own["served"]]
    for method in methods:
        for key in ("examples", "error-groups"):
            method.pop(key, None)
    methods.sort(key=lambda method: method["name"])

    used, waiting = {}, list(references(methods))
    while waiting:
        name = waiting.pop()
        if name not in used:
            used[name] = schemas[name]
            waiting.extend(references(schemas[name]))

    document = {
        "openrpc": "1.2.6",
        "info": own["info"],
        "methods": methods,
        "components": {"schemas": dict(sorted(used.items()))},
    }
    # One method or schema a line: small, and a change shows as the line it is.
    lines = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    for name in [f'{{"name":"{m["name"]}"' for m in methods] + [f'"{n}":' for n in sorted(used)]:
        lines = lines.replace(f",{name}", f",\n{name}").replace(f"[{name}", f"[\n{name}")
    assert json.loads(lines) == document
    (HERE / "openrpc.json").write_text(lines + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) / "src")
