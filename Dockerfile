# One file for every base: the current PyTorch Deep Learning Container for SageMaker (Amazon Linux 2023), older ones
# (Ubuntu), Debian, or plain python:3.11 or python:3.12. It adds what is missing and leaves torch and CUDA alone.
#
#   docker build -t sagemaker-monai .                                                              a GPU image
#   docker build -t sagemaker-monai --build-arg BASE_IMAGE=public.ecr.aws/deep-learning-containers/pytorch:2.13-cpu-amzn2023-sagemaker .
#   docker build -t sagemaker-monai --build-arg BASE_IMAGE=python:3.12 --build-arg TORCH=cpu .     no AWS image at all
#
# Tags move, so `make push` accepts only images built on a digest, as in pytorch@sha256:...; docs/image.md says how to
# find it.
ARG BASE_IMAGE=public.ecr.aws/deep-learning-containers/pytorch:2.13-cu133-amzn2023-sagemaker

# sagemaker-training is published as source with a C extension: compile it in a stage of its own, so that the image has
# no compiler.
FROM ${BASE_IMAGE} AS wheels
USER root
ENV PATH=/opt/venv/bin:${PATH}
COPY docker/base_python /build/
RUN /build/base_python --compiler
COPY pyproject.toml docker/install_packages.py docker/requirements*.txt /build/
RUN python /build/install_packages.py --pins /build --build-wheels /wheels

FROM ${BASE_IMAGE}
USER root
ENV PATH=/opt/venv/bin:${PATH} \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
COPY docker/base_python /build/
RUN /build/base_python

# The build of torch for a base without torch: cpu or cuda. Ignored if the base has torch.
ARG TORCH=base
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY pyproject.toml docker/install_packages.py docker/requirements*.txt /build/
COPY --from=wheels /wheels /build/wheels
RUN python /build/install_packages.py --pins /build --pyproject /build/pyproject.toml --wheels /build/wheels \
      --torch "${TORCH}" --torch-index "${TORCH_INDEX}" --record /opt/sagemaker-monai/base.json

# The account for processes that decode uploads.
RUN echo 'model:x:10001:10001::/nonexistent:/sbin/nologin' >> /etc/passwd && echo 'model:x:10001:' >> /etc/group

# Jobs with a script of their own run through the toolkit, as in the base; all others run our code.
ENV BASE_TRAINING_MODULE=${SAGEMAKER_TRAINING_MODULE} \
    SAGEMAKER_TRAINING_MODULE=sagemaker_monai.entrypoints.train:run_in_toolkit \
    WORKER_USER=model
COPY docker/entrypoint /usr/local/bin/
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/entrypoint"]
CMD []

# The code comes last: a change of it rebuilds from here. The AWS command belongs on users' machines, not in the image.
COPY pyproject.toml README.md LICENSE /build/code/
COPY container_src /build/code/container_src
COPY docker/sbom.py /build/
RUN python -m pip install --quiet --disable-pip-version-check --no-cache-dir --root-user-action=ignore \
      --no-deps --no-index --no-build-isolation /build/code \
    && rm "$(command -v sagemaker-monai)" \
    && python /build/install_packages.py --check /opt/sagemaker-monai/base.json \
    && python /build/sbom.py > /opt/sagemaker-monai/sbom.cdx.json \
    && chmod -R go-w /opt/sagemaker-monai && chmod 755 /usr/local/bin/entrypoint && rm -rf /build \
    && mkdir -p /opt/ml/input/data /opt/ml/model /opt/ml/output

ARG REVISION=unknown
ARG VERSION=unknown
ARG SOURCE=unknown
ENV IMAGE_REVISION=${REVISION}
ARG BASE_IMAGE
LABEL org.opencontainers.image.title="sagemaker-monai" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      com.amazonaws.sagemaker.capabilities.accept-bind-to-port="true" \
      com.amazonaws.sagemaker.capabilities.multi-models="true"
