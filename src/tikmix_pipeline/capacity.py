"""Where `python -m tikmix_pipeline.capacity` went: it is a tool beside the package now, `python -m tools.capacity`."""

import sys

if __name__ == "__main__":
    sys.exit("The capacity plan is a tool beside the package now: from the project's folder, python -m tools.capacity.")
