"""What the server of fresh processes does once, so that none of its forks has to.

Importing this imports torchvision and safetensors, which takes each process that loads a model half a second, and
finds out which vector instructions the C++ compiler can use here: inductor asks it for each instruction set in each
process that compiles or loads a kernel, about 17 s where nothing is cached, 2 s where it is. The test programs lie in
inductor's own folder of the user, not in the cache of a build, as its precompiled headers do: they are the machine's,
so a cold build does not pay for them.
"""

import contextlib

import safetensors.torch  # noqa: F401 - imported for those who come after
from torch._inductor.cpu_vec_isa import pick_vec_isa

from cifar_tune.models import import_torchvision

import_torchvision()

with contextlib.suppress(Exception):  # without a compiler there is nothing to find out; a build says so itself
    pick_vec_isa()
