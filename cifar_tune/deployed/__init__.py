"""What runs a candidate where cifar_tune is not installed: files that are copied into its folder.

`<runtime>.py` becomes `model.py` there, which opens the deployable form; `example.py` and `predict.py` use it. So they
import nothing of this package, and each can be read by itself. The runtimes that are measured take their options from
these files: what is measured is what is shipped.
"""
