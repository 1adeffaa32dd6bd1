"""gpuprop on the CPU against its peers: ``gpuprop bench peers``, see `gpuprop.bench.peers`."""

from gpuprop.bench.peers import main

if __name__ == "__main__":
    main()
