"""torchrun for the processes of one host, started by `launch`: `agent ROOM TORCHRUN_ARGUMENTS...`.

It calls torchrun's `run`, rather than `python -m torch.distributed.run`, for two reasons: only the agent knows how a
killed process ended, and all hosts shall report that; and the agent must end with its parent.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from sagemaker_monai.errors import INTERNAL_ERROR, ConfigError, failure_line
from sagemaker_monai.sagemaker.launch import leave_failure
from sagemaker_monai.training.distributed import connect, tell_failure

LINGER_S = 5.0  # the first host keeps the store from which the others read the failure
CONNECT_S = 5.0
PARENT_POLL_S = 1.0


def main() -> int:
    """Run the agent; the exit code is 1 if a process failed."""
    room, arguments = Path(sys.argv[1]), parse_args(sys.argv[2:])
    _end_with_parent()
    try:
        run(arguments)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        line = f"{INTERNAL_ERROR}: a training process ended with status {failure.exitcode}"
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            line = f"{INTERNAL_ERROR}: a training process was killed by {name}" + (
                "; the system does this when memory is short: take a smaller batch_size or a larger instance"
                * (name == "SIGKILL")
            )
        with contextlib.suppress(RuntimeError):
            store = connect(arguments.master_addr, arguments.master_port, timeout_s=CONNECT_S)
            line = tell_failure(store, line)
        leave_failure(room, line)
        if arguments.node_rank == 0 and arguments.nnodes != "1":
            time.sleep(LINGER_S)
        return 1
    except DistError:
        leave_failure(
            room,
            failure_line(
                ConfigError(
                    "the hosts of the job did not meet in time: see that `train` runs on every host and that port "
                    f"{arguments.master_port} of the first one can be reached from the others, or raise "
                    "HOSTS_TIMEOUT_SECONDS"
                )
            ),
        )
        return 1
    return 0


def _end_with_parent() -> None:
    parent = os.getppid()

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)  # torchrun passes it on

    threading.Thread(target=look, name="parent", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
