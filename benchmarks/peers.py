"""gpuprop on the CPU against its peers. It takes the options of ``gpuprop bench peers``; ``--help`` lists them."""

from __future__ import annotations

import sys

from gpuprop.__main__ import main

sys.exit(main(["bench", "peers", *sys.argv[1:]]))
