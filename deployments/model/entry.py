"""What Serve takes for the way into a model's application, so that the Model deployment may have its own router."""

from __future__ import annotations

from ray import serve
from ray.serve.handle import DeploymentHandle


@serve.deployment(
    name="Entry",
    autoscaling_config={"min_replicas": 0, "initial_replicas": 0, "max_replicas": 1},
    ray_actor_options={"num_cpus": 0},
)
class EntryDeployment:
    """Never has a replica, since nobody calls it: a model's application has no address, and who asks a model holds a
    handle of its Model deployment. But behind HAProxy Serve refuses a custom router on the deployment that an
    application begins with.
    """

    def __init__(self, _: DeploymentHandle) -> None:
        pass
