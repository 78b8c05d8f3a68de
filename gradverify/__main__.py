"""`python -m gradverify` is `gradverify`."""

from __future__ import annotations

from gradverify.cli.main import main

if __name__ == "__main__":
    main()
