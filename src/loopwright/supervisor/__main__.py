"""``python -m loopwright.supervisor``: the background process behind ``loopwright up``."""

import sys

from loopwright.supervisor.watch import main

sys.exit(main())
