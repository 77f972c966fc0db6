"""Break the code in one small way at a time, and see whether its tests notice: script/test mutants.

Read the survivors: no test tells them from the code, or they make no difference. What is only read is not changed.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
#: The host library with the gate, and the plan.
MODULES = [f"plugins/module_utils/{each}.py" for each in ("host/*", "workers/plan", "workers/limits")]
#: By test module of tests/unit: the modules that it tests beside the one of its own name.
ALSO = {
    "host/test_archive": "extract tar", "host/test_finish": "drain rollback", "host/test_gate": "context",
    "host/test_history": "commands prune status", "host/test_overlap": "proc sockets",
    "host/test_mask": "mask_forms mask_values", "host/test_preflight": "cli commands config locks status",
    "host/test_recovery": "journal recover", "host/test_sandbox": "hooks", "host/test_workers": "proc sockets",
    "host/test_switch": "config cutover hooks rollback slots", "host/test_tune": "tune_lease tune_load tune_slot",
    "host/test_secrets": "digests", "modules/test_app_probe": "interpreter probe proc", "test_templates": "settings",
    "modules/test_host_files": "file_set file_state files written",
}  # fmt: skip
SWAPS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
STATEMENTS = (ast.Expr, ast.AugAssign, ast.Delete, ast.Raise, ast.Break, ast.Continue)
#: Calls that only tell people something, and arguments that only word something.
TELLING, WORDING = {"report", "report_drained", "print", "add_argument"}, {"help", "metavar", "description", "encoding"}


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """Yield each small change that could change what a module does: `LINE: before -> after`, and the whole new text."""
    whole = source.encode()
    starts = [0, *(at + 1 for at, byte in enumerate(whole) if byte == ord("\n"))]
    for node, after in changes(ast.parse(source)):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or 1) - 1] + (node.end_col_offset or 0)
        change = f"{node.lineno}: {whole[start:end].decode()}  ->  {after}"
        yield change, (whole[:start] + after.encode() + whole[end:]).decode()


def changes(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Yield nodes, each with what takes its place."""
    if is_wording(node):
        return
    if isinstance(node, ast.expr):
        yield from ((node, f"({ast.unparse(new)})") for new in expressions(node))
    elif isinstance(node, ast.Return) and node.value and not isinstance(node.value, ast.Constant):
        yield node, "return None"
    # A name without its only assignment is unknown: that would show nothing of the tests.
    elif isinstance(node, STATEMENTS) or (isinstance(node, ast.Assign) and not is_of_names(node.targets[0])):
        yield node, "pass"
    for name, value in ast.iter_fields(node):
        if name not in {"annotation", "returns", "decorator_list", "exc"}:
            for child in value if isinstance(value, list) else [value]:
                yield from changes(child) if isinstance(child, ast.AST) else ()


def is_of_names(target: ast.expr) -> bool:
    """Whether what is assigned to is only names."""
    return isinstance(target, ast.Name) or (isinstance(target, ast.Tuple) and all(map(is_of_names, target.elts)))


def is_wording(node: ast.AST) -> bool:
    """Whether a node is for people only: a docstring, a message, what tells of a step."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) or is_wording(node.value)
    if isinstance(node, ast.Call):
        return getattr(node.func, "attr", getattr(node.func, "id", "")) in TELLING
    return isinstance(node, ast.JoinedStr)


def expressions(node: ast.expr) -> Iterator[ast.expr]:
    """Yield what could take an expression's place."""
    if isinstance(node, ast.Compare):
        for at, old in enumerate(node.ops):
            yield ast.Compare(node.left, [*node.ops[:at], SWAPS[type(old)](), *node.ops[at + 1 :]], node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        is_truth = isinstance(node.value, bool)
        yield from map(ast.Constant, (not node.value,) if is_truth else (node.value + 1, node.value - 1))
    elif isinstance(node, ast.Call):
        for dropped in (word for word in node.keywords if word.arg and word.arg not in WORDING):
            yield ast.Call(node.func, node.args, [word for word in node.keywords if word is not dropped])


def tests_of(module: str) -> list[str]:
    """Return the test modules that should notice a change of a module, as paths in the checkout."""
    folder, name = Path(module).parent.name, Path(module).stem
    names = [f"{folder}/test_{name}", *(test for test, also in ALSO.items() if name in also.split())]
    return [file for file in (f"tests/unit/{each}.py" for each in names) if (REPOSITORY / file).is_file()]


def outcome(folder: Path, tests: list[str]) -> str:
    """Run test modules in a copy. A mutant may signal any process: it gets a process tree of its own."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-current-user"]
    words = ["unshare", *user, "--pid", "--fork", "--kill-child", "--mount-proc", "nice", "-n", "19", sys.executable]
    words += ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    # Bytecode is told from its source by time and size: those of two mutants can be the same.
    own = {"PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": "", "FLEET_HYPOTHESIS_PROFILE": "mutants"}
    env, seconds = {**os.environ, **own}, 300 * len(tests)
    try:
        done = subprocess.run(words, cwd=folder, env=env, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return "timed out"  # a loop without end, too
    return "killed" if done.returncode else "survived"


def run(chosen: list[tuple[str, str, str]], place: Path) -> list[str]:
    """Apply one mutant (module, change, text) after the other, in a copy of the checkout for each core."""
    skipped, cores = shutil.ignore_patterns(".*", "__pycache__", "amazon", "community"), range(os.cpu_count() or 1)
    copies = [shutil.copytree(REPOSITORY, place / str(n), symlinks=True, ignore=skipped) for n in cores]

    def apply(module: str, change: str, text: str) -> str:
        (folder := copies.pop()).joinpath(module).write_text(text, encoding="utf-8")
        ended = outcome(folder, tests_of(module))
        shutil.copy2(REPOSITORY / module, folder / module)
        copies.append(folder)
        print(f"{ended}: {module}:{change}\n" if ended != "killed" else "", end="", flush=True)
        return ended

    if outcome(copies[0], sorted({test for module, *_ in chosen for test in tests_of(module)})) != "survived":
        raise SystemExit("the tests fail before anything is changed")
    with ThreadPoolExecutor(len(copies)) as pool:
        return list(pool.map(apply, *zip(*chosen, strict=True)))


def main() -> None:
    """Draw mutants, run them, tell the rate."""
    parser = argparse.ArgumentParser(prog="script/test mutants", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=100, help="so many, drawn at random; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--module", action="append", metavar="PATH", help="this one only; more than once for more")
    args = parser.parse_args()
    modules = args.module or [str(file.relative_to(REPOSITORY)) for glob in MODULES for file in REPOSITORY.glob(glob)]
    tested = sorted(filter(tests_of, modules))
    print("without unit tests:", *sorted({*modules} - {*tested}), flush=True)
    every = [(module, *mutant) for module in tested for mutant in mutants((REPOSITORY / module).read_text())]
    with tempfile.TemporaryDirectory() as place:
        number = min(args.count or len(every), len(every))
        ends = run(random.Random(args.seed).sample(every, number), Path(place))  # noqa: S311
    counts = ", ".join(f"{ends.count(end)} {end}" for end in ("killed", "timed out", "survived"))
    print(f"{len(ends)} of {len(every)} mutants: {counts}: {100 * ends.count('killed') / len(ends):.0f} % killed")


if __name__ == "__main__":
    main()
