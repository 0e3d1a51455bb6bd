"""Requests as values: what AWS would refuse is found before it is asked."""

import json

import pytest

from sagemaker_monai_aws.core.calls import Call, as_text, check
from sagemaker_monai_aws.core.errors import CommandError

VARIANT = {"VariantName": "a", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}


def endpoint_config(**change):
    return Call("sagemaker", "CreateEndpointConfig",
                {"EndpointConfigName": "c", "ProductionVariants": [{**VARIANT, **change}]})  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (Call("sagemaker", "DeleteModel"), 'Missing required parameter in input: "ModelName"'),
        (Call("sagemaker", "DeleteModel", {"ModelName": 1}), "Invalid type for parameter ModelName"),
        (Call("sagemaker", "DeleteModel", {"ModelName": "a_b"}), "ModelName: 'a_b' does not match"),
        (Call("sagemaker", "DeleteModel", {"ModelName": "a" * 64}), "ModelName: 64 is more than 63"),
        (Call("sagemaker", "DeleteModel", {"Name": "a"}), 'Unknown parameter in input: "Name"'),
        (endpoint_config(InstanceType="m5.large"), "ProductionVariants[0].InstanceType: 'm5.large' is not one of"),
        (endpoint_config(ModelDataDownloadTimeoutInSeconds=3601), "3601 is more than 3600"),
        (endpoint_config(InitialInstanceCount=-1), "-1, valid min value"),
    ],
)
def test_what_aws_would_refuse_is_found_with_its_place(call, message):
    with pytest.raises(CommandError) as raised:
        check(call)

    assert str(raised.value).startswith(f"AWS would refuse the request {call.operation}: ")
    assert message in str(raised.value)


def test_all_faults_are_told_at_once():
    with pytest.raises(CommandError, match=r"VariantName.*; .*InstanceType"):
        check(endpoint_config(InstanceType="x", VariantName="-"))


def test_a_sound_request_passes_also_with_keys_of_a_map():
    check(endpoint_config())
    check(Call("sagemaker", "CreateModel", {
        "ModelName": "m", "PrimaryContainer": {"Environment": {"A": "b"}, "Image": "i"}}))  # fmt: skip
    with pytest.raises(CommandError, match=r"key '1-'"):
        check(Call("sagemaker", "CreateModel", {"ModelName": "m", "PrimaryContainer": {"Environment": {"1-": "b"}}}))


def test_calls_are_printed_as_json_with_bytes_as_text():
    text = as_text([Call("s3", "PutObject", {"Bucket": "b", "Key": "é", "Body": b"x"})])

    assert json.loads(text) == [
        {"service": "s3", "operation": "PutObject", "request": {"Bucket": "b", "Key": "é", "Body": "x"}}
    ]
