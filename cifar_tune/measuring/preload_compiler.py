"""What the server of fresh processes does once where variants are compiled.

Importing this imports inductor and finds out which vector instructions the C++ compiler can use here: inductor asks it
for each instruction set in each process that compiles or loads a kernel, about 17 s where nothing is cached, 2 s where
it is. The test programs lie in inductor's own folder of the user, not in the cache of a build, as its precompiled
headers do: they are the machine's, so a cold build does not pay for them.
"""

import contextlib

import torch._inductor.compile_fx  # noqa: F401 - imported for those who come after
from torch._inductor.cpu_vec_isa import pick_vec_isa

with contextlib.suppress(Exception):  # without a compiler there is nothing to find out; a build says so itself
    pick_vec_isa()
