"""The head: last layer of up to 16 classes, loss, its delta and the last hidden delta in one launch.

It takes the options of ``gpuprop bench kernels``, for example ``--device cuda --dtype float64``; ``--help`` lists them.
"""

from __future__ import annotations

import sys

from gpuprop.__main__ import main

sys.exit(main(["bench", "kernels", "--only", "head", *sys.argv[1:]]))
