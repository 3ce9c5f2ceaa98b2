"""From a frame of a million rows to a report: seconds, and megabytes on disk."""

import sys
import tempfile
import time
from pathlib import Path

from smoothness.consistency import check_frame, check_twins
from smoothness.report.write import write_page
from tests.report.synthetic import synthetic_run


def main(rows: int = 1_000_000) -> None:
    small = len(synthetic_run(seeds=5, examples=100).frame)
    run = synthetic_run(seeds=5, examples=max(1, round(100 * rows / small)))
    with tempfile.TemporaryDirectory() as folder:
        started, worked = time.perf_counter(), time.process_time()
        page = write_page(run, [*check_frame(run.frame), check_twins(run.cells)], Path(folder) / "report")
        seconds, worked = time.perf_counter() - started, time.process_time() - worked
        size = {path.name: path.stat().st_size / 1e6 for path in page.parent.rglob("*") if path.is_file()}
    print(
        f"{len(run.frame):,} rows: {seconds:.1f} s ({worked:.1f} s of processor), {sum(size.values()):.1f} MB in all"
    )
    for name, megabytes in sorted(size.items(), key=lambda item: -item[1])[:5]:
        print(f"  {name}: {megabytes:.2f} MB")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
