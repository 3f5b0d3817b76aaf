"""`python -m ratchet_trainer` is `ratchet trainer`, without the command line in between."""

from ratchet_trainer.app import main

main()
