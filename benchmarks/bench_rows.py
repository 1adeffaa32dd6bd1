"""The row kernel: loss and delta from net inputs, any number of classes.

It takes the options of ``gpuprop bench kernels``, for example ``--device cuda --dtype float64``; ``--help`` lists them.
"""

from __future__ import annotations

import sys

from gpuprop.__main__ import main

sys.exit(main(["bench", "kernels", "--only", "rows", *sys.argv[1:]]))
