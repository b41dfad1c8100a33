"""`python -m vae_tf` is `vae-tf`."""

import sys

from vae_tf.cli import main

sys.exit(main())
