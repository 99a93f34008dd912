"""Creates the stack of deploy/aws/muster.yaml and prints its outputs as JSON.

Arguments: endpoint, region, the stack's name, the template, the bundle, and parameters as
`Name=value`. Uploads the bundle to a bucket of the stack's own first.
"""

import hashlib
import json
import sys

import boto3

endpoint, region, name, template, bundle, *more = sys.argv[1:]


def client(service):
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


with open(bundle, "rb") as file:
    archive = file.read()
bucket = f"{name}-bundles"
s3 = client("s3")
s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})
s3.put_object(Bucket=bucket, Key="muster-under-test.tar.gz", Body=archive)

parameters = {
    "BundleBucket": bucket,
    "BundleKey": "muster-under-test.tar.gz",
    "BundleSha256": hashlib.sha256(archive).hexdigest(),
    # Fifteen workers share two processors here, and extend only so often.
    "VisibilityTimeout": "15",
    **dict(parameter.split("=", 1) for parameter in more),
}
stacks = client("cloudformation")
with open(template) as file:
    stacks.create_stack(
        StackName=name,
        TemplateBody=file.read(),
        Parameters=[
            {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()
        ],
        Capabilities=["CAPABILITY_IAM"],
    )
stack = stacks.describe_stacks(StackName=name)["Stacks"][0]
if stack["StackStatus"] != "CREATE_COMPLETE":
    sys.exit(f"{stack['StackStatus']}: {stack.get('StackStatusReason')}")
print(json.dumps({output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}))
