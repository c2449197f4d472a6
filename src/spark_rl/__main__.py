"""``python -m spark_rl``: the command line."""

from spark_rl.cli import main

raise SystemExit(main())
