"""What runs a candidate where cifar_tune is not installed: files that are copied into its folder, never imported here.

`<runtime>.py` becomes `model.py` there, which opens the deployable form; `example.py` and `predict.py` use it. So they
import nothing of this package, and each can be read alone.
"""
