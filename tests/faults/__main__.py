"""`python -m tests.faults`: make every fault happen and print the table; see `--help`."""

if __name__ == "__main__":  # the forkserver imports this module, too
    import argparse
    import sys
    import tempfile
    from pathlib import Path

    from tests.faults.everything import main

    parser = argparse.ArgumentParser(description="Make every fault happen, and print what came of it.")
    parser.add_argument("--write", action="store_true", help="write docs/faults.md if all is as it should be")
    parser.add_argument("--quick", action="store_true", help="only the cases that `make test` runs")
    parser.add_argument("--only", default="", help="only the faults whose description has this in it")
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time (2)")
    parser.add_argument("--directory", type=Path, help="keep what the runs wrote here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        directory = given.directory or Path(temporary)
        sys.exit(main(given.write, given.jobs, given.only, not given.quick, directory))
