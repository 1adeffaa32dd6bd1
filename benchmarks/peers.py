"""gpuprop on the CPU against its peers: ``gpuprop bench peers``, whose options it takes; ``--help`` lists them."""

from __future__ import annotations

import sys

from gpuprop.__main__ import main

sys.exit(main(["bench", "peers", *sys.argv[1:]]))
