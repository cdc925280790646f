"""Machine code of CUDA kernels, made and read without a GPU: what a kernel needs, and which instructions it has."""

import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from cuda.bindings import nvjitlink
from cuda.pathfinder import find_nvidia_binary_utility

from tests.cuda.compiler import CAPABILITY, compile_to


class MachineCode(NamedTuple):
    """What the linker says of a kernel, and its instructions by name."""

    registers: int
    stack: int
    spills: int
    shared: int
    instructions: Counter[str]

    def count(self, prefix: str) -> int:
        """How many instructions have a name that begins so."""
        return sum(n for name, n in self.instructions.items() if name.startswith(prefix))

    @property
    def in_float64(self) -> dict[str, int]:
        """Instructions on float64 numbers, conversions included."""
        return {
            name: n
            for name, n in self.instructions.items()
            if re.match(r"D(ADD|MUL|FMA|SETP|MNMX)|F2F\.F64|MUFU.*64|I2F\.F64", name)
        }


def compile_kernel(kernel: Any, *types: Any) -> MachineCode:
    """Compile a kernel for arguments of some types."""
    code = compile_to("ltoir", kernel.py_func, types)
    handle = nvjitlink.create(3, [f"-arch=sm_{CAPABILITY[0]}{CAPABILITY[1]}a", "-lto", "-verbose"])
    try:
        nvjitlink.add_data(handle, nvjitlink.InputType.LTOIR, code, len(code), kernel.py_func.__name__)
        nvjitlink.complete(handle)
        log = bytearray(nvjitlink.get_info_log_size(handle))
        nvjitlink.get_info_log(handle, log)
        binary = bytearray(nvjitlink.get_linked_cubin_size(handle))
        nvjitlink.get_linked_cubin(handle, binary)
    finally:
        nvjitlink.destroy(handle)
    return _read(log.decode(), bytes(binary))


def _read(log: str, binary: bytes) -> MachineCode:
    def figure(pattern: str) -> int:
        found = re.search(pattern, log)
        return int(found[1]) if found else 0

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(binary)
        tool = find_nvidia_binary_utility("nvdisasm")
        listing = subprocess.run([tool, "-c", path], check=True, capture_output=True, text=True).stdout
    names = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Za-z0-9_.]*)", listing, re.MULTILINE)
    spills = figure(r"(\d+) bytes spill stores") + figure(r"(\d+) bytes spill loads")
    return MachineCode(
        figure(r"Used (\d+) registers"),
        figure(r"(\d+) bytes stack frame"),
        spills,
        figure(r"(\d+) bytes smem"),
        Counter(names),
    )
