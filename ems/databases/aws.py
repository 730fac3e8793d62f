"""AWS's names for what may pass, and for what is wrong with credentials; for every plug-in that calls AWS."""

from __future__ import annotations

from botocore import exceptions

SIGN_IN = (
    "Check AWS_PROFILE and ~/.aws; `aws configure`, or `aws sso login`, writes them. See: aws sts get-caller-identity"
)
THROTTLED = frozenset({
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "ThrottlingError",
    "RequestLimitExceeded",
    "LimitExceededException",
})  # fmt: skip
MAY_PASS = frozenset({"InternalServerError", "InternalFailure", "ServiceUnavailable", "RequestTimeout"})
SIGNATURE = frozenset({
    "UnrecognizedClientException",
    "InvalidSignatureException",
    "ExpiredTokenException",
    "ExpiredToken",
    "InvalidClientTokenId",
    "MissingAuthenticationTokenException",
    "IncompleteSignatureException",
})  # fmt: skip
CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.ProfileNotFound,
    exceptions.ConfigParseError,
    exceptions.SSOError,
    exceptions.TokenRetrievalError,
)
