"""The store of models over a host that is told what happens."""

import asyncio
import contextlib
import dataclasses

import pytest

from sagemaker_monai.errors import (
    BundleError,
    MalformedRequest,
    ModelAlreadyLoaded,
    ModelNotFound,
    NotEnoughMemory,
    Unavailable,
)
from sagemaker_monai.serving import memory
from sagemaker_monai.serving import models as module
from sagemaker_monai.serving.back_end import Request, Response, StartError
from sagemaker_monai.serving.memory import MIB, MemoryBudget
from sagemaker_monai.serving.models import ModelStore
from sagemaker_monai.serving.settings import ServeConfig

QUESTION = Request(b"hello", "text/plain")


class FakeBackEnd:
    def __init__(self, host, model_dir):
        self.host, self.model_dir = host, model_dir
        self.failure = asyncio.get_running_loop().create_future()

    async def start(self):
        await self.host.gate.wait()
        if self.host.error is not None:
            raise self.host.error

    async def answer(self, request):
        await self.host.gate.wait()
        return Response(200, "text/plain", self.model_dir.name.encode())

    def is_alive(self):
        return True

    async def failed(self):
        return await self.failure

    async def stop(self):
        self.host.stopped.append(self.model_dir.name)


class FakeHost:
    def __init__(self):
        self.gate = asyncio.Event()
        self.gate.set()
        self.error = None
        self.alive = True
        self.back_ends, self.stopped = [], []

    async def start(self):
        pass

    def back_end(self, model_dir):
        self.back_ends.append(FakeBackEnd(self, model_dir))
        return self.back_ends[-1]

    def is_alive(self):
        return self.alive

    async def failed(self):
        return "never"

    async def stop(self):
        self.stopped.append("host")


@pytest.fixture
def run(tmp_path):
    """Run `scenario(store, host, url)` where url(name) is the place of a model that exists."""

    def make(scenario, *, free_mib=10_000, **options):
        config = dataclasses.replace(
            ServeConfig.from_env({"SAGEMAKER_MULTI_MODEL": "true"}), models_dir=tmp_path, timeout_s=5.0
        )

        def url(name):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "weights").write_bytes(bytes(100))
            return str(tmp_path / name)

        async def main():
            host = FakeHost()
            store = ModelStore(config, host, budget=MemoryBudget(lambda: free_mib * MIB), **options)
            await store.start()
            return await scenario(store, host, url)

        return asyncio.run(main())

    return make


def test_a_model_is_listed_described_and_asked_while_it_is_loaded(run):
    async def scenario(store, host, url):
        await store.load("n", url("a"))
        assert store.url_of("n") == url("a")
        assert store.list_models(limit="", token="") == ({"n": url("a")}, None)
        assert (await store.answer("n", QUESTION)).body == b"a"
        with pytest.raises(ModelAlreadyLoaded):
            await store.load("n", url("b"))

        await store.unload("n")

        assert host.stopped == ["a"]
        assert store.list_models(limit="", token="") == ({}, None)
        for call in (store.answer("n", QUESTION), store.unload("n")):
            with pytest.raises(ModelNotFound):
                await call
        await store.load("n", url("b"))
        assert (await store.answer("n", QUESTION)).body == b"b"

    run(scenario)


def test_a_model_is_unloaded_also_when_the_one_who_asked_leaves(run):
    async def scenario(store, host, url):
        await store.load("n", url("a"))
        host.gate.clear()
        busy = asyncio.create_task(store.answer("n", QUESTION))
        await asyncio.sleep(0)
        leaving = asyncio.create_task(store.unload("n"))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        host.gate.set()
        await busy
        await store.stop()

        assert host.stopped == ["host", "a"]

    run(scenario)


def test_the_same_model_asked_for_twice_at_once_is_loaded_once(run):
    async def scenario(store, host, url):
        host.gate.clear()
        first, second = (asyncio.create_task(store.load("n", url("a"))) for _ in range(2))
        await asyncio.sleep(0.05)
        with pytest.raises(ModelNotFound):
            store.url_of("n")
        host.gate.set()
        await first
        with pytest.raises(ModelAlreadyLoaded):
            await second
        assert len(host.back_ends) == 1

    run(scenario)


def test_who_waits_for_a_load_that_fails_hears_why(run):
    async def scenario(store, host, url):
        host.gate.clear()
        host.error = StartError("BundleError: a weight is missing")
        both = [asyncio.create_task(store.load("n", url("a"))) for _ in range(2)]
        await asyncio.sleep(0.05)
        host.gate.set()
        for load in both:
            with pytest.raises(BundleError, match=r"^a weight is missing$"):
                await load

    run(scenario)


def test_a_load_goes_on_when_nobody_waits_for_it_any_more(run):
    async def scenario(store, host, url):
        host.gate.clear()
        load = asyncio.create_task(store.load("n", url("a")))
        await asyncio.sleep(0.05)
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
        host.gate.set()
        with pytest.raises(ModelAlreadyLoaded):
            await store.load("n", url("a"))

    run(scenario)


def test_unloading_waits_for_requests_in_flight_and_refuses_new_ones(run):
    async def scenario(store, host, url):
        await store.load("n", url("a"))
        host.gate.clear()
        answer = asyncio.create_task(store.answer("n", QUESTION))
        await asyncio.sleep(0)
        unload = asyncio.create_task(store.unload("n"))
        await asyncio.sleep(0.05)
        with pytest.raises(ModelNotFound):
            await store.answer("n", QUESTION)
        assert host.stopped == []
        host.gate.set()
        await unload
        assert host.stopped == ["a"]
        assert (await answer).body == b"a"

    run(scenario)


def test_unloading_a_model_that_is_being_loaded_waits_for_it(run):
    async def scenario(store, host, url):
        host.gate.clear()
        load = asyncio.create_task(store.load("n", url("a")))
        await asyncio.sleep(0.05)
        unload = asyncio.create_task(store.unload("n"))
        await asyncio.sleep(0.05)
        host.gate.set()
        await asyncio.gather(load, unload)
        assert host.stopped == ["a"]

    run(scenario)


@pytest.mark.parametrize(
    ("cause", "error", "message"),
    [
        ("BundleError: the weights are not those", BundleError, "^the weights are not those$"),
        ("no answer 600 s after the start", BundleError, "^no answer 600 s"),
        ("InternalError: KeyError: '/opt/ml' at f:1", BundleError, "the log has the cause$"),
        ("InternalError: MemoryError:  at f:1", NotEnoughMemory, "unload another"),
        ("InternalError: RuntimeError: [enforce fail] can't allocate memory", NotEnoughMemory, "unload another"),
    ],
)
def test_a_model_that_cannot_be_loaded_leaves_nothing_behind(run, cause, error, message):
    async def scenario(store, host, url):
        await store.load("other", url("b"))
        host.error = StartError(cause)
        with pytest.raises(error, match=message):
            await store.load("n", url("a"))
        assert host.stopped == ["a"]
        assert list(store.list_models(limit="", token="")[0]) == ["other"]
        host.error = None
        await store.load("n", url("a"))

    run(scenario)


def test_a_process_that_the_kernel_ended_for_want_of_memory_is_507(run, monkeypatch):
    counts = iter([3, 4])
    monkeypatch.setattr(module, "killed_processes", lambda: next(counts))

    async def scenario(store, host, url):
        host.error = StartError("the process of the model ended while it loaded it")
        with pytest.raises(NotEnoughMemory):
            await store.load("n", url("a"))

    run(scenario)


def test_a_model_without_room_is_refused_before_a_process_is_started(run, monkeypatch):
    monkeypatch.setattr(memory, "SETTLE_S", 0)

    async def scenario(store, host, url):
        host.gate.clear()
        first = asyncio.create_task(store.load("one", url("a")))
        await asyncio.sleep(0.05)
        with pytest.raises(NotEnoughMemory, match="needs about 400 MiB and 100 MiB are free"):
            await store.load("two", url("b"))  # what the first may still take is not counted on
        assert len(host.back_ends) == 1
        host.gate.set()
        await first
        await store.load("two", url("b"))

    run(scenario, free_mib=501)


def test_a_model_whose_processes_cannot_be_kept_alive_is_dropped_and_can_be_loaded_again(run):
    async def scenario(store, host, url):
        await store.load("n", url("a"))
        host.back_ends[0].failure.set_result("it ended 6 times")
        await asyncio.sleep(0.01)
        assert host.stopped == ["a"]
        with pytest.raises(ModelNotFound):
            await store.answer("n", QUESTION)
        await store.load("n", url("a"))

    run(scenario)


def test_stopping_ends_what_is_loaded_and_what_is_being_loaded(run):
    async def scenario(store, host, url):
        await store.load("one", url("a"))
        host.gate.clear()
        load = asyncio.create_task(store.load("two", url("b")))
        await asyncio.sleep(0.05)
        await store.stop()
        assert sorted(host.stopped) == ["a", "b", "host"]
        with pytest.raises(asyncio.CancelledError):
            await load

    run(scenario)


def test_places_without_a_model_are_refused(run, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()

    async def scenario(store, host, url):
        for name, cause in {"absent": "No such file", "empty": "is empty", "file": "Not a directory"}.items():
            with pytest.raises(BundleError, match=cause) as refusal:
                await store.load("n", str(tmp_path / name))
            assert str(tmp_path) not in str(refusal.value)
        with pytest.raises(MalformedRequest):
            await store.load("n", "/etc")
        host.alive = False
        with pytest.raises(Unavailable):
            await store.load("n", url("a"))
        assert not store.is_alive()
        assert host.back_ends == []

    run(scenario)


def test_what_was_made_to_read_an_artifact_is_kept_as_long_as_the_model(run, tmp_path):
    copies = []

    @contextlib.contextmanager
    def readable(folder):
        copies.append(folder.name)
        yield tmp_path / "copy"
        copies.remove(folder.name)

    async def scenario(store, host, url):
        await store.load("n", url("a"))
        assert (await store.answer("n", QUESTION)).body == b"copy"
        assert copies == ["a"]
        await store.unload("n")
        assert copies == []

    run(scenario, readable=readable)
