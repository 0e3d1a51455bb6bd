"""Endpoints of the offline SageMaker obey its rules: health, limits, errors, variants, updates, many models, queues."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

from simulate.hosting import shares
from tests.support.simulated import archive, simulation

MIB = 1 << 20


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    with simulation(tmp_path_factory.mktemp("simulation")) as started:
        started.bucket("models", one=archive(weights=b"one"), plain__sub__weights=b"plain", broken=b"no archive")
        started.bucket("async")
        for name in ("a", "b", "c"):
            started.put("models", f"many/{name}.tar.gz", archive(weights=name.encode()))
        started.put("models", "many/empty.tar.gz", archive(other=b""))
        yield started


@pytest.fixture(scope="module")
def plain(aws):
    """The name of an endpoint in service."""
    aws.serve("plain", SAY="plain: ")
    return "plain"


def variant(model, name="AllTraffic", **changes):
    usual = {"VariantName": name, "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    return usual | changes


def serverless(memory_mb, model="plain"):
    config = {"MemorySizeInMB": memory_mb, "MaxConcurrency": 1}
    return {"VariantName": "AllTraffic", "ModelName": model, "ServerlessConfig": config}


def until(claim, seconds=90):
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


def failure(call, *arguments, **words):
    """The response of a call that fails."""
    with pytest.raises(ClientError) as error:
        call(*arguments, **words)
    return error.value.response


def test_the_container_gets_body_and_headers_and_its_answer_comes_back(aws, plain):
    answer = aws.invoke(plain, b"hello", Accept="text/csv", CustomAttributes="c")
    assert answer["Body"].read() == b"plain: HELLO"
    assert answer["ContentType"] == "text/csv"
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["CustomAttributes"] == "from the container"

    told = json.loads(aws.invoke(plain, b"tell", ContentType="image/png", InferenceId="i-1")["Body"].read())
    seen = {name.lower(): value for name, value in told["headers"].items()}
    assert seen["content-type"] == "image/png"
    assert seen["x-amzn-sagemaker-inference-id"] == "i-1"
    assert "authorization" not in seen  # AWS strips what the API does not name
    assert not [name for name in told["environment"] if name.startswith(("AWS_ACCESS", "AWS_SECRET"))]


@pytest.mark.parametrize("status", [400, 415, 500, 503])
def test_a_refusal_of_the_container_is_a_model_error(aws, plain, status):
    response = failure(aws.invoke, plain, f"status {status}".encode())

    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert response["Error"]["Code"] == "ModelError"
    assert (response["OriginalStatusCode"], response["OriginalMessage"]) == (status, "no")
    party = "client" if status < 500 else "server"
    assert f'Received {party} error ({status}) from primary with message "no"' in response["Error"]["Message"]


def test_an_answer_must_come_in_time(aws, plain):
    began = time.monotonic()
    response = failure(aws.invoke, plain, b"sleep 5")

    assert 0.9 < time.monotonic() - began < 4
    assert response["OriginalStatusCode"] == 0
    assert "Your invocation timed out" in response["OriginalMessage"]


def test_a_body_has_at_most_6_mib(aws, plain):
    limit = 6 * MIB
    told = json.loads(aws.invoke(plain, b"tell " + b"a" * (limit - 5))["Body"].read())
    assert told["size"] == limit
    response = failure(aws.invoke, plain, b"a" * (limit + 1))

    assert response["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert response["Error"]["Message"] == "HTTP content length exceeded 6291456 bytes."
    assert failure(aws.invoke, plain, b"large 6291457")["OriginalStatusCode"] == 500


def test_an_endpoint_must_be_there_and_in_service(aws):
    assert "Endpoint nobody of account 123456789012 not found." in str(failure(aws.invoke, "nobody"))

    aws.serve("slow", PING="500", wait=False)
    assert "is not in service" in str(failure(aws.invoke, "slow"))
    assert "Cannot update in-progress endpoint" in str(failure(aws.sagemaker.delete_endpoint, EndpointName="slow"))


@pytest.mark.parametrize("environment", [{"PING": "500"}, {"PING_S": "0.6"}])
def test_an_endpoint_that_is_not_healthy_in_time_fails(aws, environment):
    name = "sick-" + next(iter(environment)).lower().replace("_", "-")

    found = aws.serve(name, **environment)

    assert found["EndpointStatus"] == "Failed"
    assert found["FailureReason"] == ("The primary container for production variant AllTraffic did not pass the ping "
                                      "health check. Please check CloudWatch logs for this endpoint.")  # fmt: skip
    [lines] = aws.log(f"/aws/sagemaker/Endpoints/{name}", "AllTraffic/").values()
    assert lines[0] == "serving"
    aws.sagemaker.delete_endpoint(EndpointName=name)


def test_a_model_is_an_archive_or_files_as_they_are(aws):
    source = {"S3Uri": "s3://models/plain/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    for name, data in {"packed": {"ModelDataUrl": "s3://models/one"},
                       "unpacked": {"ModelDataSource": {"S3DataSource": source}}}.items():  # fmt: skip
        aws.serve(name, data=data)

    told = [json.loads(aws.invoke(name, b"tell")["Body"].read()) for name in ("packed", "unpacked")]
    assert [each["model"] for each in told] == [["weights"], ["sub"]]

    found = aws.serve("broken", data={"ModelDataUrl": "s3://models/broken"})
    assert "is a valid tar.gz archive" in found["FailureReason"]


def test_a_container_that_ended_is_replaced(aws):
    aws.serve("mortal")
    failure(aws.invoke, "mortal", b"die")

    def answers():
        try:
            return aws.invoke("mortal")["Body"].read() == b"HELLO"
        except ClientError:
            return False

    until(answers)


def test_deletion_asks_and_then_kills(aws):
    aws.serve("deaf", DEAF="1")
    began = time.monotonic()
    aws.sagemaker.delete_endpoint(EndpointName="deaf")
    assert aws.sagemaker.describe_endpoint(EndpointName="deaf")["EndpointStatus"] == "Deleting"
    aws.sagemaker.get_waiter("endpoint_deleted").wait(EndpointName="deaf", WaiterConfig={"Delay": 1})

    assert time.monotonic() - began >= 0.5  # what a container may take in this simulation
    assert "not found" in str(failure(aws.invoke, "deaf"))


def test_variants_share_the_requests_by_weight(aws):
    for name in ("left", "right"):
        aws.serve(f"{name}-model", SAY=f"{name} ", deploy=False)
    variants = [variant("left-model", "left", InitialVariantWeight=1),
                variant("right-model", "right", InitialVariantWeight=3)]  # fmt: skip
    found = aws.serve("shared", variants=variants)

    counts = {"left": 0, "right": 0}
    for _ in range(40):
        answer = aws.invoke("shared")
        counts[answer["InvokedProductionVariant"]] += 1
        assert answer["Body"].read() == f"{answer['InvokedProductionVariant']} HELLO".encode()
    assert 8 <= counts["left"] <= 12
    assert aws.invoke("shared", TargetVariant="left")["Body"].read() == b"left HELLO"
    assert [each["CurrentWeight"] for each in found["ProductionVariants"]] == [1, 3]


def update(aws, endpoint, config, **deployment):
    words = {"DeploymentConfig": deployment} if deployment else {}
    aws.sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=config, **words)
    assert aws.sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointStatus"] == "Updating"


@pytest.fixture
def updated(aws, request):
    """An endpoint that says blue, and configurations that say green and never get healthy."""
    name = f"{request.node.name[5:30].replace('_', '-')}x"
    aws.serve(name, SAY="blue ")
    aws.serve(f"{name}-green", SAY="green ", deploy=False)
    aws.serve(f"{name}-sick", PING="500", deploy=False)
    return name


def test_an_update_answers_all_the_time_and_then_with_the_new_fleet(aws, updated):
    update(aws, updated, f"{updated}-green")
    said = []
    while aws.sagemaker.describe_endpoint(EndpointName=updated)["EndpointStatus"] == "Updating":
        said.append(aws.invoke(updated)["Body"].read())
    said.append(aws.invoke(updated)["Body"].read())

    assert set(said) == {b"blue HELLO", b"green HELLO"}
    assert said[0] == b"blue HELLO"
    assert said[-1] == b"green HELLO"
    found = aws.sagemaker.describe_endpoint(EndpointName=updated)
    assert found["EndpointConfigName"] == f"{updated}-green"
    assert "FailureReason" not in found


def test_an_update_that_fails_leaves_the_old_fleet(aws, updated):
    update(aws, updated, f"{updated}-sick")
    found = aws.wait("endpoint", "EndpointStatus", EndpointName=updated)

    assert found["EndpointStatus"] == "InService"
    assert "did not pass the ping health check" in found["FailureReason"]
    assert found["EndpointConfigName"] == updated
    assert aws.invoke(updated)["Body"].read() == b"blue HELLO"


def canary(percent=50):
    routing = {"Type": "CANARY", "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": percent},
               "WaitIntervalInSeconds": 60}  # fmt: skip
    return {"TrafficRoutingConfiguration": routing}


def test_a_canary_gets_its_part_first(aws, updated):
    update(aws, updated, f"{updated}-green", BlueGreenUpdatePolicy=canary())
    said = []
    while b"green HELLO" not in said:
        said.append(aws.invoke(updated)["Body"].read())
    said = [aws.invoke(updated)["Body"].read() for _ in range(6)]

    assert set(said) == {b"blue HELLO", b"green HELLO"}
    found = aws.wait("endpoint", "EndpointStatus", EndpointName=updated)
    assert found["LastDeploymentConfig"]["BlueGreenUpdatePolicy"] == canary()
    assert {aws.invoke(updated)["Body"].read() for _ in range(4)} == {b"green HELLO"}


def test_an_alarm_rolls_back(aws, updated):
    cloudwatch = aws.client("cloudwatch")
    metric = {"MetricName": "m", "Namespace": "n", "Statistic": "Sum", "Period": 60, "EvaluationPeriods": 1}
    cloudwatch.put_metric_alarm(AlarmName="errors", Threshold=1, ComparisonOperator="GreaterThanThreshold", **metric)
    cloudwatch.set_alarm_state(AlarmName="errors", StateValue="ALARM", StateReason="a test")
    update(aws, updated, f"{updated}-green", BlueGreenUpdatePolicy=canary(),
           AutoRollbackConfiguration={"Alarms": [{"AlarmName": "errors"}]})  # fmt: skip
    found = aws.wait("endpoint", "EndpointStatus", EndpointName=updated)

    assert found["FailureReason"].endswith("alarms in ALARM state: errors")
    assert {aws.invoke(updated)["Body"].read() for _ in range(4)} == {b"blue HELLO"}


@pytest.mark.parametrize(
    ("routing", "expected"),
    [
        ({}, [1.0]),
        ({"Type": "CANARY", "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 10}}, [0.1, 1.0]),
        ({"Type": "LINEAR", "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 40}}, [0.4, 0.8, 1.0]),
        ({"Type": "LINEAR", "LinearStepSize": {"Type": "INSTANCE_COUNT", "Value": 1}}, [0.5, 1.0]),
    ],
)
def test_traffic_is_shifted_in_the_steps_that_were_asked_for(routing, expected):
    deployment = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}

    assert shares(deployment if routing else {}) == expected


def test_a_serverless_endpoint_takes_4_mib_and_so_many_requests_at_once(aws):
    found = aws.serve("serverless", variants=[serverless(2048, "serverless")])
    assert found["ProductionVariants"][0]["CurrentServerlessConfig"] == {"MemorySizeInMB": 2048, "MaxConcurrency": 1}

    assert len(aws.invoke("serverless", b"a" * (4 * MIB - 1))["Body"].read()) == 4 * MIB - 1
    assert failure(aws.invoke, "serverless", b"a" * (4 * MIB + 1))["ResponseMetadata"]["HTTPStatusCode"] == 413
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(aws.invoke, "serverless", b"sleep 0.6")
        time.sleep(0.3)
        response = failure(aws.invoke, "serverless", b"second")
        assert first.result()["Body"].read() == b"SLEEP 0.6"
    assert response["Error"]["Code"] == "ThrottlingException"


@pytest.mark.parametrize(
    ("variants", "config", "message"),
    [
        ([variant("nobody")], {}, 'Could not find model "arn:aws:sagemaker'),
        ([variant("plain"), variant("plain")], {}, "VariantName must be unique"),
        ([{"VariantName": "a", "ModelName": "plain"}], {}, "needs either InstanceType or ServerlessConfig"),
        ([serverless(1500)],
         {}, "MemorySizeInMB must be 1024"),
        ([serverless(1024)],
         {"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://a/b"}}}, "not supported with Serverless"),
        ([variant("plain")], {"ShadowProductionVariants": [variant("plain", "shadow")]}, "not simulated offline"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be_is_refused(aws, plain, variants, config, message):
    with pytest.raises(ClientError, match=message):
        aws.sagemaker.create_endpoint_config(EndpointConfigName="refused", ProductionVariants=variants, **config)


def test_an_endpoint_needs_its_configuration(aws):
    with pytest.raises(ClientError, match="Could not find endpoint configuration"):
        aws.sagemaker.create_endpoint(EndpointName="none", EndpointConfigName="nobody")


def test_data_capture_is_described_and_said_not_to_happen(aws):
    capture = {"EnableCapture": True, "InitialSamplingPercentage": 100, "DestinationS3Uri": "s3://models/capture",
               "CaptureOptions": [{"CaptureMode": "Input"}]}  # fmt: skip
    found = aws.serve("captured", config={"DataCaptureConfig": capture})

    assert found["DataCaptureConfig"]["CaptureStatus"] == "Stopped"
    assert "endpoint captured: data capture is not simulated" in aws.notes


# Many models


@pytest.fixture(scope="module")
def many(aws):
    """A multi-model endpoint whose container has room for two."""
    aws.serve("many", data={"ModelDataUrl": "s3://models/many/", "Mode": "MultiModel"})
    return "many"


def test_models_come_on_request_and_the_least_recently_used_goes(aws, many):
    def ask(name):
        return aws.invoke(many, b"hello", TargetModel=f"{name}.tar.gz")["Body"].read()

    assert [ask(name) for name in "abac"] == [b"a says hello", b"b says hello", b"a says hello", b"c says hello"]

    server = next(iter(aws.simulation.hosting.settled(many).servers.values()))
    assert list(server.loaded) == ["a.tar.gz", "c.tar.gz"]
    assert [ask(name) for name in "ba"] == [b"b says hello", b"a says hello"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({}, "Target model is required"),
        ({"TargetModel": "none.tar.gz"}, r"Failed to download model data\(bucket: models, key: many/none.tar.gz\)"),
        ({"TargetModel": "empty.tar.gz"}, 'Received server error \\(500\\) from primary with message "broken"'),
    ],
)
def test_a_model_that_cannot_be_loaded_is_told(aws, many, words, message):
    with pytest.raises(ClientError, match=message):
        aws.invoke(many, **words)


def test_one_model_is_not_many(aws, plain):
    with pytest.raises(ClientError, match="not a multi-model endpoint"):
        aws.invoke(plain, TargetModel="a.tar.gz")


# Asynchronous


@pytest.fixture(scope="module")
def queued(aws):
    """An asynchronous endpoint."""
    output = {"S3OutputPath": "s3://async/out", "S3FailurePath": "s3://async/failure/"}
    aws.serve("queued", config={"AsyncInferenceConfig": {"OutputConfig": output}})
    return "queued"


def later(aws, endpoint, **words):
    return aws.runtime.invoke_endpoint_async(EndpointName=endpoint, **words)


def test_an_asynchronous_answer_is_an_object_named_out(aws, queued):
    aws.put("async", "in/one", b"hello")
    answer = later(aws, queued, InputLocation="s3://async/in/one", InferenceId="mine", Accept="text/csv")

    name = answer["OutputLocation"].removeprefix("s3://async/out/")
    assert name.endswith(".out")
    assert answer["InferenceId"] == "mine"
    assert answer["FailureLocation"] == f"s3://async/failure/{name.removesuffix('.out')}-error.out"
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
    until(lambda: f"out/{name}" in aws.keys("async", "out/"))
    found = aws.s3.get_object(Bucket="async", Key=f"out/{name}")
    assert (found["Body"].read(), found["ContentType"]) == (b"HELLO", "text/csv")


def test_a_small_body_needs_no_object_and_its_answer_may_have_a_name(aws, queued):
    answer = later(aws, queued, Body=b"small", S3OutputPathExtension="day", Filename="one.json")

    assert answer["OutputLocation"] == "s3://async/out/day/one.json"
    until(lambda: "out/day/one.json" in aws.keys("async", "out/day/"))
    assert aws.get(answer["OutputLocation"]) == b"SMALL"
    assert failure(later, aws, queued, Body=b"a" * 128_001)["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert "Exactly one of InputLocation and Body" in str(failure(later, aws, queued))


@pytest.mark.parametrize(
    ("body", "message"), [(b"status 415", "Received client error (415)"), (None, "Failed to download input data")]
)
def test_a_failure_is_an_object_of_its_own(aws, queued, body, message):
    answer = later(aws, queued, **({"Body": body} if body else {"InputLocation": "s3://async/none"}))

    key = answer["FailureLocation"].removeprefix("s3://async/")
    until(lambda: key in aws.keys("async", "failure/"))
    assert message in aws.get(answer["FailureLocation"]).decode()
    assert answer["OutputLocation"].removeprefix("s3://async/") not in aws.keys("async", "out/")


def test_requests_wait_in_a_queue_that_has_an_end(aws, queued):
    held = [later(aws, queued, Body=b"sleep 1.5", InvocationTimeoutSeconds=3)]
    time.sleep(0.3)  # it is no longer in the queue
    held += [later(aws, queued, Body=b"next") for _ in range(3)]
    response = failure(later, aws, queued, Body=b"too many")

    assert response["ResponseMetadata"]["HTTPStatusCode"] == 503
    names = [each["OutputLocation"].removeprefix("s3://async/") for each in held]
    until(lambda: set(names) <= set(aws.keys("async", "out/")))


def test_how_an_endpoint_is_asked_is_not_free(aws, plain, queued):
    assert "is asynchronous: use InvokeEndpointAsync" in str(failure(aws.invoke, queued))
    assert "is not asynchronous: use InvokeEndpoint." in str(failure(later, aws, plain, Body=b"x"))


def test_an_endpoint_that_closes_with_the_simulation_leaves_no_process(tmp_path):
    with simulation(tmp_path) as aws:
        aws.serve("deaf", DEAF="1")
        server = next(iter(aws.simulation.hosting.settled("deaf").servers.values()))
        process = server.running
        assert process.code() is None

    assert process.code() == 128 + 9
    assert list(tmp_path.iterdir()) == []
