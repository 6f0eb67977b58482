"""What the server of fresh processes does once, so that none of its forks has to.

Importing this imports torchvision and safetensors, which takes each process that loads a model half a second.
"""

import safetensors.torch  # noqa: F401 - imported for those who come after

from cifar_tune.libraries import import_torchvision

import_torchvision()
