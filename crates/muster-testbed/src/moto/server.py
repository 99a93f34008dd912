"""Moto's server, completed with documented behaviour of AWS that it lacks.

Run as `python3 -c <this> <moto_server>`: listens on a free port of loopback, says where on standard
error, and leaves as soon as its standard input closes, which the kernel does for a test process
however that ends.
"""

import copy
import functools
import json
import os
import runpy
import sys
import threading
import time

from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import Event
from moto.cloudformation.responses import CloudFormationResponse
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError, InvalidLaunchTemplateIdNotFound
from moto.ec2.models import ec2_backends
from moto.ec2.models.instances import Instance, InstanceBackend, InstanceState
from moto.ec2.responses import EC2Response
from moto.ec2.responses.instances import InstanceResponse
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.sqs import models as sqs


def completes(owner):
    """Puts a function, given the one that it replaces, in the place of `owner`'s of that name."""

    def put(function):
        original = getattr(owner, function.__name__)

        @functools.wraps(original)
        def completed(self, *args, **kwargs):
            return function(original, self, *args, **kwargs)

        setattr(owner, function.__name__, completed)

    return put


# --- What tests set and ask -----------------------------------------------------------------------

# How long a state lasts that an instance passes through. Moto knows only the states between.
transition_s = {"pending": 0.0, "stopping": 0.0, "shutting-down": 0.0}

# How many instances may be there at once of those that a pool describes.
capacity = []


def set_transitions(request):
    unknown = request.keys() - transition_s.keys()
    if unknown:
        raise KeyError(f"no such transition: {unknown}")
    transition_s.update(request)


def set_capacity(request):
    pool, instances = request["pool"], request["instances"]
    capacity[:] = [limit for limit in capacity if limit[0] != pool]
    if instances is not None:
        capacity.append((pool, instances))


def instances(request):
    """The instances that have a tag: what DescribeInstances says about them in 50 times the time."""
    key, value = request["tag"]
    return [
        {
            "id": instance.id,
            "state": instance.state,
            "boots": instance.boots,
            "user_data": str(instance.user_data or ""),
            "name": backend.tags.get(instance.id, {}).get("Name"),
        }
        for regions in ec2_backends.values()
        for backend in regions.values()
        for reservation in backend.reservations.values()
        for instance in reservation.instances
        if backend.tags.get(instance.id, {}).get(key) == value
    ]


# How many reservations one page of a listing has at most, whatever the caller asks for.
page = {"size": sys.maxsize}


def set_page(request):
    page["size"] = request["reservations"]


def power_off(request):
    """What the operating system's shutdown is to EC2: `InstanceInitiatedShutdownBehavior` says."""
    for regions in ec2_backends.values():
        for backend in regions.values():
            for reservation in backend.reservations.values():
                for instance in reservation.instances:
                    if instance.id == request["id"]:
                        if instance.instance_initiated_shutdown_behavior == "terminate":
                            instance.terminate()
                        else:
                            instance.stop()


TESTBED = {
    "/_testbed/power-off": power_off,
    "/_testbed/page": set_page,
    "/_testbed/transitions": set_transitions,
    "/_testbed/capacity": set_capacity,
    "/_testbed/instances": instances,
}


@completes(DomainDispatcherApplication)
def __call__(original, self, environ, start_response):
    answer = TESTBED.get(environ["PATH_INFO"])
    if answer is None:
        return original(self, environ, start_response)
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    with ec2:
        body = json.dumps(answer(json.loads(body))).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


# --- EC2 ------------------------------------------------------------------------------------------

# Moto's models are read and written by the server's threads without a lock.
ec2 = threading.RLock()

# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html: the server errors.
SERVER_ERRORS = [b"<Code>InsufficientInstanceCapacity</Code>"]


@completes(EC2Response)
def call_action(original, self):
    with ec2:
        status, headers, body = original(self)
    content = body.encode() if isinstance(body, str) else body
    if status == 400 and any(code in content for code in SERVER_ERRORS):
        status = headers["status"] = 500
    return status, headers, body


@completes(InstanceBackend)
def _get_template_from_args(original, self, args):
    """A launch template that is not there is an error of the caller (moto: an IndexError)."""
    template = args.get("LaunchTemplateId")
    if template is not None and template not in self.launch_templates:
        raise InvalidLaunchTemplateIdNotFound(template)
    return original(self, args)


# RunInstances: "Any parameters that you specify in RunInstances override the same parameters in the
# launch template." Moto takes the image, type, key, groups, disks, tags and user data from it.
TEMPLATE_PARAMETERS = [
    "IamInstanceProfile",
    "InstanceInitiatedShutdownBehavior",
    "InstanceMarketOptions",
    "MetadataOptions",
    "NetworkInterfaces",
]

# The reservation of each client token, with the parameters it was made with.
reservations = {}


@completes(InstanceResponse)
def run_instances(original, self):
    """Adds client tokens, counts, capacity and the rest of the launch template.

    "Ensuring idempotency in Amazon EC2 API requests": a request repeated with its client token
    launches nothing, answers what the first one did, and fails with IdempotentParameterMismatch if
    its parameters differ.

    RunInstances: "If you specify a value that is more capacity than Amazon EC2 can launch in the
    target Availability Zone, Amazon EC2 launches the largest possible number of instances above the
    specified minimum count", else none. Moto launches the minimum.
    """
    parameters = copy.deepcopy(self.params)
    token = parameters.get("ClientToken")
    key = (self.current_account, self.region, token)
    if token is not None and key in reservations:
        made_with, result = reservations[key]
        if made_with != parameters:
            raise EC2ClientError(
                "IdempotentParameterMismatch",
                "The client token was used before, with other parameters.",
            )
        return result

    template = {}
    if "LaunchTemplate" in parameters:
        version = self.ec2_backend._get_template_from_args(parameters["LaunchTemplate"])
        template = version.data
        for name in TEMPLATE_PARAMETERS:
            if name in template and name not in parameters:
                self.params[name] = copy.deepcopy(template[name])
        if "SubnetId" in parameters and "NetworkInterfaces" in self.params:
            raise EC2ClientError(
                "InvalidParameterCombination",
                "Network interfaces and an instance-level subnet ID may not be specified on the"
                " same request",
            )

    # Moto answers a dry run before it looks whether the subnet is there.
    if "SubnetId" in parameters:
        self.ec2_backend.get_subnet(parameters["SubnetId"])

    wanted = pool_of(self.params, template)
    least, most = int(parameters["MinCount"]), int(parameters["MaxCount"])
    count = min(most, free(self.ec2_backend, wanted))
    if count < least:
        raise insufficient_capacity(wanted)
    self.params["MinCount"] = count
    result = original(self)
    for instance in self.ec2_backend.reservations[result.result.id].instances:
        instance.pool = wanted
    if token is not None:
        reservations[key] = (parameters, result)
    return result


# Moto answers "pending" always, also where a repeated request finds its instances terminated.
EC2Response.RESPONSE_KEY_PATH_TO_TRANSFORMER[
    "RunInstances.Reservation.Instances.Instance.State"
] = lambda state: InstanceState("pending", 0) if state.name == "running" else state


def pool_of(parameters, template):
    """What of a launch decides where its capacity comes from."""
    interfaces = parameters.get("NetworkInterfaces") or [{}]
    launch_template = parameters.get("LaunchTemplate", {})
    market = parameters.get("InstanceMarketOptions", {}).get("MarketType", "on-demand")
    return {
        "instance_type": parameters.get("InstanceType", template.get("InstanceType")),
        "subnet": parameters.get("SubnetId", interfaces[0].get("SubnetId")),
        "market": market,
        "launch_template": launch_template.get("LaunchTemplateName")
        or launch_template.get("LaunchTemplateId"),
    }


def free(backend, wanted):
    """How many more instances like `wanted` there is capacity for."""

    def within(pool, candidate):
        return all(candidate.get(key) == value for key, value in pool.items())

    there = [
        instance.pool
        for reservation in backend.reservations.values()
        for instance in reservation.instances
        if hasattr(instance, "pool") and instance.state in ("pending", "running", "stopping")
    ]
    left = [
        limit - sum(within(pool, other) for other in there)
        for pool, limit in capacity
        if within(pool, wanted)
    ]
    return max(0, min(left, default=sys.maxsize))


def insufficient_capacity(wanted):
    return EC2ClientError(
        "InsufficientInstanceCapacity",
        f"We currently do not have sufficient {wanted['instance_type']} capacity in the"
        " Availability Zone you requested.",
    )


def state_of(instance):
    passing = instance.__dict__.get("_passing")
    if passing is not None and time.monotonic() < passing[1]:
        return passing[0]
    return instance.__dict__["_settled"]


# "Amazon EC2 instance state changes": pending, stopping and shutting-down are passed through.
Instance._state = property(
    state_of, lambda self, state: self.__dict__.__setitem__("_settled", state)
)


def passes(instance, name, code):
    instance._passing = (InstanceState(name, code), time.monotonic() + transition_s[name])


@completes(Instance)
def __init__(original, self, *args, **kwargs):
    original(self, *args, **kwargs)
    self.boots = 1
    passes(self, "pending", 0)


@completes(Instance)
def start(original, self):
    """Starts what is stopped; as of then it was launched ("Instance state changes")."""
    previous = copy.copy(self._state)
    if previous.name in ("pending", "running"):
        return previous
    if previous.name != "stopped":
        raise EC2ClientError(
            "IncorrectInstanceState",
            f"The instance '{self.id}' is not in a state from which it can be started.",
        )
    if hasattr(self, "pool") and free(self.ec2_backend, self.pool) < 1:
        raise insufficient_capacity(self.pool)
    original(self)
    self.boots += 1
    self.launch_time = utcnow()
    passes(self, "pending", 0)
    return previous


@completes(Instance)
def stop(original, self):
    """Stops what runs; a Spot instance of a one-time request can not be stopped ("Stop a Spot
    Instance")."""
    previous = copy.copy(self._state)
    if previous.name in ("stopping", "stopped"):
        return previous
    if previous.name != "running":
        raise EC2ClientError(
            "IncorrectInstanceState",
            f"The instance '{self.id}' is not in a state from which it can be stopped.",
        )
    if self.lifecycle == "spot":
        raise EC2ClientError(
            "UnsupportedOperation",
            f"You can't stop the Spot Instance '{self.id}' because it is associated with a"
            " one-time Spot Instance request.",
        )
    self._passing = None
    original(self)
    passes(self, "stopping", 64)
    return previous


@completes(Instance)
def terminate(original, self):
    previous = copy.copy(self._state)
    if previous.name in ("shutting-down", "terminated"):
        return previous
    self._passing = None
    original(self)
    passes(self, "shutting-down", 32)
    return previous


def get_tags(self):
    """Looks the tags up (moto: matches every tag there is), in describe_tags' shape."""
    return [
        {
            "resource_id": self.id,
            "key": key,
            "value": value,
            "resource_type": "instance",
        }
        for key, value in self.ec2_backend.tags.get(self.id, {}).items()
    ]


Instance.get_tags = get_tags


@completes(InstanceResponse)
def describe_instances(original, self):
    """Pages by place, so that a reservation may leave the filter between two pages.

    "Pagination": "The number of items in the response might be less than the specified maximum."
    """
    token = self.params.pop("NextToken", None)
    size = self.params.pop("MaxResults", None)
    self.params["MaxResults"] = sys.maxsize
    found = original(self).result["Reservations"]
    order = {name: place for place, name in enumerate(self.ec2_backend.reservations)}
    after = int(token) if token is not None else -1
    found = [reservation for reservation in found if order[reservation.id] > after]
    shown = found if size is None else found[: min(int(size), page["size"])]
    more = str(order[shown[-1].id]) if len(shown) < len(found) else None
    return ActionResult({"Reservations": shown, "NextToken": more})


# --- CloudFormation -------------------------------------------------------------------------------


def of_launch_template(original, resource_name, cloudformation_json, account_id, region_name, **more):
    """Takes from an instance's launch template what the resource leaves out (moto: nothing)."""
    properties = cloudformation_json["Properties"]
    if "LaunchTemplate" in properties:
        backend = ec2_backends[account_id][region_name]
        version = backend._get_template_from_args(properties["LaunchTemplate"])
        for name in ["InstanceType", "UserData"]:
            if name in version.data:
                properties.setdefault(name, version.data[name])
    return original(resource_name, cloudformation_json, account_id, region_name, **more)


Instance.create_from_cloudformation_json = functools.partial(
    of_launch_template, Instance.create_from_cloudformation_json
)


def signal_resource(self):
    """Publishes a signal as an event of the stack, as AWS does (moto: has no such operation).

    Stacks are complete here before anything boots, so that nothing waits for it, and what waits is
    not rolled back.
    """
    stack = self.cloudformation_backend.get_stack(self._get_param("StackName"))
    logical_id = self._get_param("LogicalResourceId")
    if logical_id not in stack.template_dict["Resources"]:
        raise ValidationError(message=f"Resource {logical_id} does not exist for stack {stack.name}")
    status, unique_id = self._get_param("Status"), self._get_param("UniqueId")
    stack.events.append(
        Event(
            stack_id=stack.stack_id,
            stack_name=stack.name,
            logical_resource_id=logical_id,
            physical_resource_id=unique_id,
            resource_type=stack.template_dict["Resources"][logical_id]["Type"],
            resource_status="CREATE_IN_PROGRESS",
            resource_status_reason=f"Received {status} signal with UniqueId {unique_id}",
            resource_properties=None,
        )
    )
    return ActionResult({})


CloudFormationResponse.signal_resource = signal_resource


# --- SQS ------------------------------------------------------------------------------------------

# Moto changes a queue's list of messages without a lock: a message that is sent while another is
# deleted can be lost, and two receivers can get the same one. A wait lets go of the lock.


def holds_the_queue(original, self, queue_name, *args, **kwargs):
    with self.get_queue(queue_name)._messages_lock:
        return original(self, queue_name, *args, **kwargs)


for operation in [
    "change_message_visibility",
    "delete_message",
    "purge_queue",
    "receive_message",
    "send_message",
]:
    holds_the_queue.__name__ = operation
    completes(sqs.SQSBackend)(holds_the_queue)


@completes(sqs.SQSBackend)
def is_message_valid_based_on_retention_period(original, self, queue_name, message):
    """Looks at one attribute (moto: at all of them, which counts the messages for each receive)."""
    retention_s = self.get_queue(queue_name).message_retention_period
    return message.sent_timestamp / 1000 + retention_s > time.time()


def size(entry):
    """The bytes of a message: its body, and the name, type and value of each attribute."""
    attributes = (entry.get("MessageAttributes") or {}).items()
    parts = [entry["MessageBody"]]
    for name, value in attributes:
        value = {key[:1].lower() + key[1:]: part for key, part in value.items()}
        parts += [name, value["dataType"], value.get("stringValue") or ""]
    return sum(len(part.encode()) for part in parts)


@completes(sqs.SQSBackend)
def send_message_batch(original, self, queue_name, entries):
    """Counts bytes, attributes included, against the queue's limit (moto: the body's characters)."""
    limit = self.get_queue(queue_name).maximum_message_size
    if any(size(entry) > limit for entry in entries.values()):
        raise sqs.InvalidParameterValue(
            "One or more parameters are invalid. Reason: Message must be shorter than"
            f" {limit} bytes."
        )
    return original(self, queue_name, entries)


# Moto asks a clock that tests may stop, several times for every message there is.
sqs.unix_time = time.time
sqs.unix_time_millis = lambda: time.time() * 1000


if __name__ == "__main__":
    threading.Thread(
        target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True
    ).start()
    sys.argv = [sys.argv[1], "-H", "127.0.0.1", "-p", "0"]
    runpy.run_path(sys.argv[0], run_name="__main__")
