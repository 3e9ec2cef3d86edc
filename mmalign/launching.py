"""Whether a launcher started this process as one of several, read from the environment it left; torch-free."""

import os

from mmalign.errors import ConfigError

SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where torchrun, accelerate and MPI say how many processes they started; the first that is set counts."""
SEVERAL = "torchrun --standalone --nproc-per-node 2 -m mmalign align RECIPE"


def launched() -> int:
    """How many processes the launcher says it started; 1 where nothing launched this one.

    Raises:
        ConfigError: it was asked for several and started one, or says no number.
    """
    for name in SIZES:
        if name in os.environ:
            text = os.environ[name]
            if not text.isdecimal() or int(text) < 1:
                raise ConfigError(f"{name} = {text!r} in the environment: expected a number of processes")
            return int(text)
    # On the CPU and without MPI, accelerate launch starts one process whatever --num_processes says, and leaves an
    # address to meet at for those that it did not start.
    if "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ:
        raise ConfigError(
            "accelerate launch was asked for several processes and started one alone, as it does on the CPU without "
            f"MPI; start them with: {SEVERAL}"
        )
    return 1


def check_alone(command: str) -> None:
    """Refuse a command that does not share its work among processes, where several were started.

    Raises:
        ConfigError: they were.
    """
    count = launched()
    if count > 1:
        way = "; share the files with --shard I/N" if command == "score" else ""
        raise ConfigError(
            f"mmalign {command} is one process, and a launcher started {count}, which would all do the same; start it "
            f"alone{way}"
        )
