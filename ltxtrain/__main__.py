"""``python -m ltxtrain`` is the same program as the ``ltxtrain`` command."""

from ltxtrain.cli import main

if __name__ == "__main__":
    main()
