"""`serve`: starts the back end, has it answer a picture, opens the public port, and stops on a signal or a failure.

The order matters, because SageMaker sends traffic as soon as /ping is 200: bind the port (one that is taken fails at
once), load the model, ask it for a real prediction, and only then listen.
"""

import signal
import sys

if __name__ == "__main__":  # process 1 of a container ignores a signal without a handler, and the imports take seconds
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

import argparse
import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

from sagemaker_monai.errors import BundleError, CallerError, ConfigError, failure_line
from sagemaker_monai.sagemaker.environment import library_defaults
from sagemaker_monai.serving.back_end import BackEnd, StartError
from sagemaker_monai.serving.gateway import Gateway
from sagemaker_monai.serving.mms.mms import ModelServer, SingleModel
from sagemaker_monai.serving.models import ModelStore
from sagemaker_monai.serving.privileges import Lodgings, readable_artifact, restrict_this_process, room_for
from sagemaker_monai.serving.references import ObjectStore
from sagemaker_monai.serving.settings import VARIABLES, ServeConfig
from sagemaker_monai.serving.temporary import remove_abandoned
from sagemaker_monai.serving.warm_up import warm_up
from sagemaker_monai.serving.workers import WorkerPool, WorkerPools
from sagemaker_monai.storage.files import children

logger = logging.getLogger(__name__)

HANDLER = "sagemaker_monai.entrypoints.handler_service:Handler"
BACK_ENDS: dict[str, type[WorkerPool] | type[SingleModel]] = {"workers": WorkerPool, "mms": SingleModel}
HOSTS: dict[str, type[WorkerPools] | type[ModelServer]] = {"workers": WorkerPools, "mms": ModelServer}
_ARTIFACT = "SM_MODEL_DIR, or SAGEMAKER_BASE_DIR/model, must hold an unpacked model.tar.gz"
DRAIN_S = 25.0  # SageMaker kills the container 30 s after SIGTERM


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal ends it.

    Returns:
        0 after SIGTERM, SIGINT or SIGHUP; 1 when the model cannot be served, with the cause in the log's last line.
    """
    width = max(map(len, VARIABLES))
    parser = argparse.ArgumentParser(
        prog="serve",
        description="Serve the model artifact over HTTP under the SageMaker contract.",
        epilog="environment:\n" + "\n".join(f"  {name:{width}}  {text}" for name, text in VARIABLES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(argv)
    for number in ending_signals():  # until `supervise` listens to them
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        config = ServeConfig.from_env(os.environ)
        logging.basicConfig(level=config.log_level, format="%(asctime)s %(levelname)s serve: %(message)s")
        if not config.is_multi_model:
            check_folder(config)
        restrict_this_process()
        if abandoned := remove_abandoned():
            logger.info("removed %d folders in TMPDIR that earlier servers had left", len(abandoned))
        inherited = {**os.environ, **library_defaults(os.environ)}
        with room_for(config.worker_account, inherited, config.worker_env) as lodgings:
            readable = partial(readable_artifact, lodgings.account, lodgings.room)
            if config.is_multi_model:
                asyncio.run(supervise(config, partial(make_store, config, lodgings, readable)))
            else:
                with readable(config.model_dir) as folder:
                    config = replace(config, model_dir=folder)
                    asyncio.run(supervise(config, partial(make_back_end, config, lodgings)))
    except StartError as error:
        cause = str(error)
    except CallerError as error:
        cause = failure_line(error)
    else:
        return 0
    print(f"serve: {cause}", file=sys.stderr, flush=True)
    return 1


def ending_signals() -> list[signal.Signals]:
    """Signals that shut the server down cleanly: a terminal sends SIGHUP when it closes, unless under `nohup`."""
    is_heard = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
    return [signal.SIGTERM, *([signal.SIGHUP] if is_heard else [])]


def check_folder(config: ServeConfig) -> None:
    """Check that there is an artifact at all, before anything is started.

    Raises:
        BundleError: there is none.
    """
    try:
        is_empty = not children(config.model_dir)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise BundleError(f"the model artifact cannot be read ({reason}): {_ARTIFACT}") from error
    if is_empty:
        raise BundleError(f"the model artifact's folder is empty: {_ARTIFACT}")


def make_back_end(config: ServeConfig, lodgings: Lodgings) -> BackEnd:
    """The back end of a server with one model."""
    kind = BACK_ENDS[config.back_end]
    return kind(config, handler=HANDLER, warm_up=warm_up(config, config.model_dir), lodgings=lodgings)


def make_store(
    config: ServeConfig, lodgings: Lodgings, readable: Callable[[Path], AbstractContextManager[Path]]
) -> ModelStore:
    """The models of a multi-model server; `readable` makes an artifact readable for the worker processes."""
    host = HOSTS[config.back_end](config, handler=HANDLER, warm_up=partial(warm_up, config), lodgings=lodgings)
    return ModelStore(config, host, readable=readable)


def make_objects(config: ServeConfig) -> ObjectStore | None:
    """S3, if requests may name objects; boto3 is imported only then."""
    if not config.allowed_prefixes:
        return None
    from sagemaker_monai.sagemaker.object_references import S3Objects

    return S3Objects(config.allowed_prefixes, max_bytes=config.max_payload_bytes, timeout_s=config.timeout_s)


async def supervise(config: ServeConfig, make: Callable[[], BackEnd | ModelStore]) -> None:
    """Run the server until one of `ending_signals`, or SIGINT.

    Args:
        config: the settings.
        make: makes the back end; called once, in the event loop.

    Raises:
        ConfigError: the port is taken.
        StartError: the model cannot be served, or no longer.
    """
    started = time.monotonic()
    stop = asyncio.Event()
    for number in (*ending_signals(), signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    stopped = asyncio.create_task(stop.wait())
    listener = bind(config.port)
    back_end = make()
    gateway = Gateway(config, back_end, objects=make_objects(config))
    failed = asyncio.create_task(back_end.failed())
    start = asyncio.create_task(back_end.start())
    try:
        await asyncio.wait([start, stopped], return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            await start
            try:
                await gateway.open(listener)
            except OSError as error:  # another process began to listen there meanwhile
                raise _port_error(config.port, error) from error
            seconds = time.monotonic() - started
            logger.info("serving on port %d after %.1f s, back end %s", config.port, seconds, config.back_end)
            await asyncio.wait([stopped, failed], return_when=asyncio.FIRST_COMPLETED)
            if not stopped.done():
                raise StartError(failed.result())
        logger.info("stopping: requests in flight are finished")
        await gateway.drain(DRAIN_S)
    finally:
        tasks = (start, failed, stopped)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await gateway.close()
        await back_end.stop()
        listener.close()


def bind(port: int) -> socket.socket:
    """Take the public port without listening yet: until then connections are refused.

    Raises:
        ConfigError: it is taken.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("0.0.0.0", port))  # noqa: S104 - the one public port
    except OSError as error:
        listener.close()
        raise _port_error(port, error) from error
    return listener


def _port_error(port: int, error: OSError) -> ConfigError:
    return ConfigError(f"port {port} cannot be used ({os.strerror(error.errno or 0)}): set SAGEMAKER_BIND_TO_PORT")


if __name__ == "__main__":
    sys.exit(main())
