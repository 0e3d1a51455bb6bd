"""`python -m sagemaker_monai.prepare SOURCE_KIND ...`: the command `prepare`, under the name of its package."""

import sys

from sagemaker_monai.entrypoints.prepare import main

if __name__ == "__main__":
    sys.exit(main())
