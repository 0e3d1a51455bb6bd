"""One of several processes that train one model, started by torchrun: `rank ROOM ARGUMENTS_OF_TRAIN...`.

See `launch` for the room, and `distributed` for how the processes work together.
"""

import logging
import os
import sys
import traceback
from pathlib import Path

from sagemaker_monai.entrypoints.train import explained, prepare_job, run_prepared_job
from sagemaker_monai.errors import CallerError, failure_line
from sagemaker_monai.messages.item_names import masked_output
from sagemaker_monai.sagemaker.launch import CACHE, STARTED, STOP, leave_failure
from sagemaker_monai.training.distributed import LOST, OtherProcessError, Processes, connect, is_loss_of_another

CONNECT_S = 60.0


def main() -> None:
    """Run one process; never returns, because after a failed collective operation the normal exit may hang."""
    with masked_output():
        code = _work(Path(sys.argv[1]), sys.argv[2:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _work(room: Path, argv: list[str]) -> int:
    environment = os.environ
    rank = int(environment["RANK"])
    logging.basicConfig(level=logging.INFO if rank == 0 else logging.ERROR, stream=sys.stderr, format="%(message)s")
    store = connect(environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), timeout_s=CONNECT_S)
    processes = Processes(
        rank=rank,
        local_rank=int(environment["LOCAL_RANK"]),
        host=int(environment["GROUP_RANK"]),
        world_size=int(environment["WORLD_SIZE"]),
        store=store,
    )

    def end(line: str) -> None:
        leave_failure(room, line)
        os._exit(1)

    is_done = processes.watch(end)
    (room / STARTED).touch()
    try:
        run_prepared_job(
            prepare_job(argv), cache_dir=room / CACHE, processes=processes, is_stopping=(room / STOP).exists
        )
        processes.finish()
        is_done.set()
    except Exception as error:
        is_done.set()
        leave_failure(room, _cause(error, processes))
        return 1
    return 0


def _cause(error: Exception, processes: Processes) -> str:
    """The failure line of the process that failed first."""
    if isinstance(error, OtherProcessError):
        return str(error)
    is_secondary = is_loss_of_another(error)
    if not is_secondary and not isinstance(error, CallerError):
        traceback.print_exc()
    return processes.cause_of(LOST if is_secondary else failure_line(explained(error)), is_secondary=is_secondary)


if __name__ == "__main__":
    main()
