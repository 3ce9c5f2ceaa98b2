"""Cost of `import smoothness` beside `import torch`, in fresh interpreters, interleaved.

Two figures: the bare import (names resolve on first use), and the import with every public name resolved.
"""

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "import torch": "import torch",
    "import smoothness": "import smoothness",
    "import smoothness, then torch": "import smoothness, torch",
    "every public name": "import smoothness as sm; [getattr(sm, name) for name in sm.__all__]",
}


def main(repeats: int = 7) -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, code in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times[name].append(time.perf_counter() - started)
    torch = statistics.median(times["import torch"])
    for name, seconds in times.items():
        print(f"{name:32} {statistics.median(seconds):6.2f} s {statistics.median(seconds) / torch:6.2f} x")


if __name__ == "__main__":
    main()
