"""Every Triton kernel compiled ahead of time, without a GPU: `python -m benchmarks.ahead [--arch 90]`.

The launchers run on tensors of the CPU with the launch itself replaced by the compiler, so that what is compiled is what they
would launch: the same types, widths and tiles. Registers, shared memory and what was spilled to local memory come from
`cuobjdump`, which Triton's wheel carries.
"""

import argparse
import importlib
import re
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from gesm import Graph
from gesm.ops._library import INTERPRETED

__all__ = ["WORKLOADS", "compile_all", "launches"]

POINTERS = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
WORKLOADS = {  # name -> heads, d, type; columns of the mixture are d
    "8 x 64 fp32": (8, 64, torch.float32),
    "8 x 64 bf16": (8, 64, torch.bfloat16),
    "4 x 64 fp32": (4, 64, torch.float32),
    "1 x 128 fp16": (1, 128, torch.float16),
    "8 x 8 fp32": (8, 8, torch.float32),
    "1 x 47 fp32": (1, 47, torch.float32),
    "1 x 7 fp32": (1, 7, torch.float32),
    "3 x 33 fp16": (3, 33, torch.float16),
    "2 x 5 fp64": (2, 5, torch.float64),
}


def compile_all(name: str, arch: int) -> Iterator[dict[str, Any]]:
    """One row a kernel that the operators launch for a workload: its name, options, registers, shared and local bytes."""
    for kernel, args, options in launches(name).values():
        yield {"kernel": kernel.fn.__name__, "options": options, **_compile(kernel, args, options, arch)}


def launches(name: str, nodes: int = 50) -> dict[tuple, tuple[Any, tuple, dict[str, Any]]]:
    """What Triton would compile for a workload: what it tells launches apart by -> kernel, arguments, options."""
    if INTERPRETED:
        raise RuntimeError("the interpreter compiles nothing; unset TRITON_INTERPRET")
    modules = [importlib.import_module(f"gesm.ops.{module}") for module in ("_triton", "spmm.triton", "attend.triton")]
    seen: dict[tuple, tuple[Any, tuple, dict[str, Any]]] = {}

    def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
        key = (kernel.fn.__name__, _signature(kernel, args), _aligned(kernel, args), tuple(options.items()))
        seen.setdefault(key, (kernel, args, options))

    kept = [module.launch for module in modules]
    for module in modules:
        module.launch = launch
    try:
        _call_all(nodes, *WORKLOADS[name])
    finally:
        for module, original in zip(modules, kept, strict=True):
            module.launch = original
    return seen


def _call_all(nodes: int, heads: int, d: int, dtype: torch.dtype) -> None:
    from gesm.ops._triton import accumulator
    from gesm.ops.attend import triton as attend
    from gesm.ops.mix import triton as mix
    from gesm.ops.spmm import triton as spmm

    hub = torch.stack([torch.arange(100 * nodes) % nodes, torch.zeros(100 * nodes, dtype=torch.long)])
    graph = Graph(torch.cat([hub, hub.flip(0)], 1), None, nodes).transition(dtype=accumulator(dtype))
    structure, transpose = (graph.rowptr, graph.col), (graph.colptr, graph.row)
    x = torch.zeros(nodes, heads, d, dtype=dtype)
    a = torch.zeros(nodes, heads, dtype=accumulator(dtype))
    edge = torch.zeros(graph.num_edges, heads, dtype=a.dtype)
    flat, seed = x.flatten(1), torch.zeros(1, dtype=torch.long)
    spmm.spmm(*structure, graph.weight, flat)
    spmm.spmm(*structure, edge, flat)
    spmm.sddmm(*structure, flat, flat, heads)
    mix.mix(*structure, graph.weight, flat.repeat(1, 4), 3)
    mix.mix_backward(*transpose, graph.weight, flat, 3)
    for score, value in (("product", graph.weight), ("additive", graph.weight), ("given", edge)):
        for p in (0.0, 0.5):
            out, lse = attend.attend(*structure, value, x, a, a, score, p, seed, True)
            args = (*structure, *transpose, graph.to_csc, value, x, a, a, lse, out, score, p, seed, True, True)
            attend.attend_backward(*args)


def _signature(kernel: Any, args: tuple) -> tuple[str, ...]:
    types = []
    for param, arg in zip(kernel.params, args, strict=False):
        if isinstance(arg, torch.Tensor):
            types.append(POINTERS[arg.dtype])
        elif isinstance(arg, float):
            types.append("fp32")
        elif arg == 1 and not param.do_not_specialize:
            types.append("constexpr")
        else:
            types.append("i64" if arg >= 2**31 else "i32")
    return tuple(types)


def _aligned(kernel: Any, args: tuple) -> tuple[int, ...]:
    """The arguments that Triton takes for multiples of 16."""
    kinds = zip(kernel.params, args, _signature(kernel, args), strict=False)
    return tuple(
        i
        for i, (param, arg, kind) in enumerate(kinds)
        if not param.do_not_specialize
        and kind != "constexpr"
        and not isinstance(arg, float)
        and (arg.data_ptr() if isinstance(arg, torch.Tensor) else arg) % 16 == 0
    )


def _compile(kernel: Any, args: tuple, options: dict[str, Any], arch: int) -> dict[str, Any]:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = [param.name for param in kernel.params]
    signature = dict(zip(names, _signature(kernel, args), strict=False))
    constants = {name: 1 for name, kind in signature.items() if kind == "constexpr"}
    constants |= {name: value for name, value in options.items() if name in names}
    signature |= dict.fromkeys(constants, "constexpr")
    aligned = {(i,): [["tt.divisibility", 16]] for i in _aligned(kernel, args)}
    source = ASTSource(fn=kernel, signature={name: signature[name] for name in names}, constexprs=constants, attrs=aligned)
    flags = {name: value for name, value in options.items() if name not in names}
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=flags)
    return {**_resources(compiled.asm["cubin"]), "shared": compiled.metadata.shared, "ptx": compiled.asm["ptx"]}


def _resources(cubin: bytes) -> dict[str, int]:
    import triton.backends.nvidia

    tool = Path(triton.backends.nvidia.__file__ or triton.backends.nvidia.__path__[0]).parent / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = {key: int(value) for key, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text)}
    return {"registers": found["REG"], "local": found["STACK"] + found["LOCAL"]}


def main() -> None:
    parser = argparse.ArgumentParser(description="Registers, shared memory and spills of every Triton kernel, without a GPU.")
    parser.add_argument("--arch", type=int, default=90, help="compute capability: 90 (Hopper), 80 (Ampere)")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="comma-separated")
    options = parser.parse_args()
    names = options.workloads.split(",")
    if unknown := [name for name in names if name not in WORKLOADS]:
        parser.error(f"there is no workload {unknown[0]!r}; choose from {', '.join(WORKLOADS)}")
    if not find_spec("triton"):
        parser.error("this compiles with Triton, which is not installed: pip install triton")
    table = Table("workload", "kernel", "variants", title=f"sm_{options.arch}", title_justify="left")
    for column in ("warps", "registers", "shared bytes", "local bytes"):
        table.add_column(column, justify="right")
    for name in names:
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in compile_all(name, options.arch):
            rows.setdefault(row["kernel"], []).append(row)
        for kernel, variants in rows.items():
            most = [max(row[key] for row in variants) for key in ("registers", "shared", "local")]
            warps = max(row["options"]["num_warps"] for row in variants)
            table.add_row(name, kernel, str(len(variants)), str(warps), *map(str, most))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
