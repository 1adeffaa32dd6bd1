"""The hidden delta: fused activation-derivative-delta with column sums.

It takes the options of ``gpuprop bench kernels``, for example ``--device cuda --dtype float64``; ``--help`` lists them.
"""

from __future__ import annotations

import sys

from gpuprop.__main__ import main

sys.exit(main(["bench", "kernels", "--only", "delta", *sys.argv[1:]]))
