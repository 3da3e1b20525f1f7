"""`python -m tests.fuzz_many FOLDER INPUTS`: reads so many spoilt files, and says what became of them as JSON."""

import json
import resource
import sys
from pathlib import Path

from tests.untrusted import READERS, refusal


def main() -> None:
    """Goes through all readers in turn; whatever is no error of ours ends it, and says which reader and seed."""
    folder, inputs = Path(sys.argv[1]), int(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    refused = 0
    for number in range(inputs):
        reader = READERS[number % len(READERS)]
        try:
            refused += refusal(reader, folder, number) is not None
        except BaseException:
            print(f"{reader.__name__}, seed {number}", flush=True)
            raise
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(json.dumps({"inputs": inputs, "refused": refused, "read": inputs - refused, "peak_mb": peak_mb}))


if __name__ == "__main__":
    main()
