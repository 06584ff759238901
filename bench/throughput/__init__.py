"""Speed and memory of one QLoRA step on one GPU: jinmaek beside the founding script, TRL and Unsloth."""

import sys
from pathlib import Path

# bench/founding.py is a script that imports what lies beside it; at the end, so that it hides nobody's module.
sys.path.append(str(Path(__file__).resolve().parent.parent))
