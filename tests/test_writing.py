"""Whatever the package writes goes through ``mmalign.files``: no call that writes stands outside of it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import mmalign

ROOT = Path(mmalign.__file__).parent
WRITES = {
    *("copy2", "copyfile", "copytree", "dump", "export", "move", "rename", "save", "save_file"),
    *(
        "save_lora_weights",
        "save_pretrained",
        "savefig",
        "savez",
        "to_csv",
        "to_json",
        "to_parquet",
        "write_bytes",
    ),
    *("write_lora_layers", "write_table", "write_text", "ParquetWriter", "SummaryWriter"),
}
"""Names of functions that write a file of a name they are given."""
WITHIN = {"whole_file", "whole_folder", "TemporaryDirectory"}
BUFFERS = {"buffer", "file"}
"""What bytes in memory are called here."""
NO_FILES = {
    ("mmalign/cli/export.py", "main"): "writes a whole folder",
    ("mmalign/cli/mesh.py", "main"): "Scene3D.save and Video.save write whole files",
    (
        "mmalign/data/label_log.py",
        "__init__",
    ): "opened to append; one line a choice, synced, and read as torn",
    ("mmalign/data/partial.py", "__init__"): "opened to append; rows of whole batches, cut on resume",
    ("mmalign/data/writers.py", "_write_parquet"): "into the unfinished file it is given",
    ("mmalign/data/writers.py", "stream_rows"): "into the unfinished file it is given",
    ("mmalign/evaluation/explanations.py", "explain"): "Image.save writes a whole file",
    ("mmalign/files.py", "_move_into"): "the mechanism itself",
    ("mmalign/files.py", "append"): "the mechanism itself",
    ("mmalign/files.py", "whole_file"): "the mechanism itself",
    ("mmalign/files.py", "whole_folder"): "the mechanism itself",
    ("mmalign/generators/denoising.py", "save_lora"): "lora.save writes a whole folder",
    ("mmalign/generators/lora.py", "_write_layers"): "into the unfinished folder it is given",
    ("mmalign/locks.py", "_taken"): "the lock",
    ("mmalign/media/animations.py", "write"): "into the unfinished file it is given",
    ("mmalign/media/scene3d.py", "save"): "Mesh.save writes a whole file",
    ("mmalign/media/video_files.py", "write"): "into the unfinished file it is given",
    ("mmalign/training/align.py", "save_weights"): "SpeechAdapter.save writes a whole folder",
    ("mmalign/training/exporting.py", "_write_merged"): "into the unfinished folder it is given",
    ("mmalign/training/loop.py", "__init__"): "metrics.jsonl and events, appended and cut back on resume",
    ("mmalign/training/plain_loading.py", "main"): "a process without mmalign, into a temporary folder",
    ("mmalign/training/loop.py", "train"): "its own save(), which writes a checkpoint",
}
"""Calls that only look like it, by file and function, and why."""


def writes(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """The function and line of every call that writes outside of the mechanism."""

    def visit(node: ast.AST, function: str, within: bool) -> Iterator[tuple[str, int]]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        if isinstance(node, ast.With):
            within = within or any(name(item.context_expr) in WITHIN for item in node.items)
        if isinstance(node, ast.Call) and not within and is_write(node):
            yield function, node.lineno
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function, within)

    return visit(tree, "", within=False)


def name(node: ast.AST) -> str:
    called = node.func if isinstance(node, ast.Call) else node
    return called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")


def is_write(call: ast.Call) -> bool:
    if name(call) == "open":
        # open(path, "w"), path.open("w"), av.open(path, "w")
        values = [*call.args, *(keyword.value for keyword in call.keywords)]
        texts = [value.value for value in values if isinstance(value, ast.Constant)]
        return any(
            isinstance(text, str) and set(text) <= set("rwaxbt+") and set(text) & set("wax+")
            for text in texts
        )
    of = call.func.value if isinstance(call.func, ast.Attribute) else None
    if name(call) in ("copy", "replace"):  # of files, not of tensors or texts
        return isinstance(of, ast.Name) and of.id in ("shutil", "os")
    if name(call) not in WRITES or (name(call) == "rename" and of is None):
        return False
    return not any(isinstance(argument, ast.Name) and argument.id in BUFFERS for argument in call.args)


def test_everything_is_written_by_one_mechanism() -> None:
    found: dict[tuple[str, str], int] = {}
    files = sorted(ROOT.rglob("*.py"))
    assert len(files) > 300, "found no package to look through"
    for path in files:
        for function, line in writes(ast.parse(path.read_text(encoding="utf-8"))):
            found[path.relative_to(ROOT.parent).as_posix(), function] = line
    stray = {place: line for place, line in found.items() if place not in NO_FILES}
    assert not stray, f"written past mmalign.files, at line: {stray}"
    gone = NO_FILES.keys() - found.keys()
    assert not gone, f"no longer write: {gone}"


def test_the_test_sees_a_stray_write() -> None:
    code = "def f(path):\n    path.write_text('a')\n    with whole_file(path) as new:\n        new.write_text('b')\n"
    assert list(writes(ast.parse(code))) == [("f", 2)]
    assert list(writes(ast.parse("def g(p):\n    open(p, mode='ab')\n    p.open('rb')\n"))) == [("g", 2)]
