"""Where artifacts run that this machine cannot run itself; so far, the emulated core of a board."""
