"""Endpoints and jobs in an account, made by hand as moto or the simulation accept them."""

from tests.support.cloud import PROJECT

ROLE = "arn:aws:iam::123456789012:role/somebody"
IMAGE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/sagemaker-monai@sha256:" + "0" * 64
TAGS = [{"Key": "project", "Value": PROJECT}, {"Key": "created-by", "Value": "sagemaker-monai"}]


def make_model(sagemaker, name, tags=TAGS, **container):
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, Tags=tags,
                           PrimaryContainer={"Image": IMAGE, **container})  # fmt: skip


def make_endpoint(sagemaker, name, *, model=None, tags=TAGS, variant=None, instance="ml.m5.large", count=1, **config):
    """Create configuration `NAME-1` and endpoint, and a model if none is named."""
    if model is None:
        model = f"{name}-model"
        make_model(sagemaker, model, tags)
    plain = {"InstanceType": instance, "InitialInstanceCount": count}
    variants = [{"VariantName": "AllTraffic", "ModelName": model, **(variant or plain)}]
    sagemaker.create_endpoint_config(EndpointConfigName=f"{name}-1", ProductionVariants=variants, Tags=tags, **config)
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=f"{name}-1", Tags=tags)


def make_training_job(sagemaker, name, tags=TAGS, *, instance="ml.m5.large", count=1, **more):
    request = {
        "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        "OutputDataConfig": {"S3OutputPath": "s3://some-bucket/jobs"},
        "ResourceConfig": {"InstanceType": instance, "InstanceCount": count, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    }
    sagemaker.create_training_job(TrainingJobName=name, RoleArn=ROLE, Tags=tags, **request | more)
