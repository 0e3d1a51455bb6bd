"""The only modules that know SageMaker and the environment."""
