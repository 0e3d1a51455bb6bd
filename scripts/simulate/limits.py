"""SageMaker's rules that are numbers, each with its source; a test replaces what it cannot wait for.

Sources: [M] botocore's service models `sagemaker` and `sagemaker-runtime` (bounds and documentation of the field),
[T] "How Amazon SageMaker AI Runs Your Training Image", [H] "Custom Inference Code with Hosting Services", [B] "Custom
Inference Code with Batch Transform", [S] "Invoke a serverless endpoint", [A] "Asynchronous inference", all of the
Amazon SageMaker AI Developer Guide.
"""

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Seconds and bytes; those without a source are this simulation's own."""

    # Jobs
    job_stop_s: float = 120  # from SIGTERM to SIGKILL [T], also for StopProcessingJob
    shm_bytes: int = 64 * MIB  # /dev/shm, Docker's default, which SageMaker does not let one change
    failure_length: int = 1024  # characters of /opt/ml/output/failure [T], bytes of /opt/ml/output/message
    max_runtime_s: float = 86_400  # without MaxRuntimeInSeconds [M]
    spot_wait_s: float = 1  # from an interruption to the next capacity; on AWS minutes to hours
    spot_price_share: float = 0.3  # BillableTimeInSeconds of a spot job over its time; on AWS it varies

    # Hosting
    ping_timeout_s: float = 2  # [H]
    ping_interval_s: float = 0.5  # on AWS about 5 s
    startup_s: float = 480  # ContainerStartupHealthCheckTimeoutInSeconds, where it is not given [H]
    serverless_startup_s: float = 180  # [S]
    serve_stop_s: float = 30  # from SIGTERM to SIGKILL [H]
    invoke_s: float = 60  # [H]
    invoke_bytes: int = 6_291_456  # BodyBlob, request and answer [M]
    serverless_bytes: int = 4 * MIB  # [S]
    bake_s: float = 0.5  # of a canary or linear step; on AWS WaitIntervalInSeconds

    # Asynchronous inference
    async_bytes: int = 1 << 30  # [A]
    async_body_bytes: int = 128_000  # AsyncBodyBlob [M]
    async_invoke_s: float = 900  # without InvocationTimeoutSeconds; at most 3600 [M]
    async_queue: int = 1000

    # Batch transform
    batch_invoke_s: float = 600  # InvocationsTimeoutInSeconds, where it is not given [M]
    batch_retries: int = 3  # InvocationsMaxRetries, where it is not given [M]
    batch_payload_mb: int = 6  # MaxPayloadInMB, where it is not given [M]
    batch_product_mb: int = 100  # of MaxConcurrentTransforms and MaxPayloadInMB [M]

    # The server itself
    poll_s: float = 0.1  # between two looks at a container
    sync_s: float = 1  # between two uploads of changed checkpoints
    control_bytes: int = MIB  # a request to the control plane
    other_bytes: int = 2 << 30  # a request to another service
    concurrent_invocations: int = 64  # real-time, of one endpoint


LIMITS = Limits()
